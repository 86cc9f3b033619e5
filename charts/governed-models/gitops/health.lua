-- Health of a GovernedModel for Argo CD.
local health = {status = "Progressing", message = "the operator has not looked at this generation yet"}
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end
local found = {}
for _, condition in ipairs(obj.status.conditions or {}) do
  found[condition.type] = condition
end
local function tell(status, condition)
  health.status = status
  health.message = condition.reason
  if condition.message ~= nil and condition.message ~= "" then
    health.message = condition.reason .. ": " .. condition.message
  end
  return health
end
local ready = found.Ready
if ready ~= nil and ready.reason == "Suspended" then
  return tell("Suspended", ready)
end
for _, name in ipairs({"Stalled", "Degraded"}) do
  if found[name] ~= nil and found[name].status == "True" then
    return tell("Degraded", found[name])
  end
end
if found.Reconciling ~= nil and found.Reconciling.status == "True" then
  return tell("Progressing", found.Reconciling)
end
if ready ~= nil and ready.status == "True" then
  local bias = found.BiasWithinThresholds
  -- a verdict is not ill health: it is shown, and what it stops is up to governance.bias.action
  return tell("Healthy", bias ~= nil and bias.status == "False" and bias or ready)
end
return ready ~= nil and tell("Progressing", ready) or health
