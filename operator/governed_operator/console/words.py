"""All words of the console, in both languages."""

from typing import Literal, get_args

__all__ = ["LANGUAGES", "WORDS", "Language", "Words", "chosen"]

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

WORDS: dict[str, tuple[str, str]] = {
    "console": ("Governance console", "治理控制台"),
    "skip": ("Skip to content", "跳到正文"),
    "pages": ("Pages", "页面"),
    "models": ("Models", "模型"),
    "decisions": ("Decisions", "决策"),
    "ledger": ("Ledger", "账本"),
    "clauses": ("Clauses", "法条"),
    "language": ("Language", "语言"),
    "footer": (
        "Read-only; shows what the governed command shows, with the rights of whoever started it.",
        "只读；显示 governed 命令所显示的内容，使用启动者的权限。",
    ),
    "as of": ("As of {time}", "截至 {time}"),
    "unreadable": ("Can't be read: {what}", "无法读取：{what}"),
    "do next": ("What to do: {command}", "下一步：{command}"),
    "reading": (
        "The ledger is being recomputed and its proofs checked. Reload in a moment.",
        "正在重新计算账本并核对证明，请稍后刷新。",
    ),
    "no models": (
        "No model is there: governed run FILE starts one; --below names another folder of runs, -n a namespace.",
        "没有模型：用 governed run FILE 启动；--below 指定其他运行目录，-n 指定命名空间。",
    ),
    "more rows": ("{more} more are not shown.", "另有 {more} 行未显示。"),
    "more models": (
        "{more} more models are not shown: governed list names them.",
        "另有 {more} 个模型未显示，见 governed list。",
    ),
    "some searched": (
        "Only the first {some} of {all} models were searched: choose the model.",
        "仅查找了 {all} 个模型中的前 {some} 个，请选择模型。",
    ),
    "choose": ("Of which model:", "请选择模型："),
    "not in time": ("it could not be read in time", "未能及时读取"),
    "no page": ("There is no such page", "没有此页面"),
    "too long": ("This page would be larger than {limit} KB.", "此页面将超过 {limit} KB。"),
    "state": ("State", "状态"),
    "address": ("Address", "地址"),
    "place": ("Place", "位置"),
    "verdict": ("Bias verdict", "偏差判定"),
    "Pass": ("Pass", "通过"),
    "Fail": ("Fail", "不通过"),
    "Unknown": ("Unknown", "未定"),
    "no verdict": ("none yet", "暂无"),
    "pass": ("pass", "通过"),
    "fail": ("fail", "不通过"),
    "not applicable": ("not applicable", "不适用"),
    "no evidence": ("no evidence", "无证据"),
    "judged": ("Verdict", "判定"),
    "serving": ("serving", "服务中"),
    "starting": ("starting", "启动中"),
    "training": ("training", "训练中"),
    "failed": ("failed", "失败"),
    "stopped": ("stopped", "已停止"),
    "unknown": ("unknown", "未知"),
    "predictions": ("Predictions judged", "已判定的预测"),
    "entries": ("Ledger entries", "账本条目"),
    "explained": ("Requests explained", "已解释的请求"),
    "share": ("{some} of {all} ({percent} %)", "{all} 个中的 {some} 个（{percent} %）"),
    "alarms": ("Alarms", "警报"),
    "none": ("none", "无"),
    "in force": ("In force: {action}", "生效中：{action}"),
    "waits": ("Waits for a person", "等待人工处理"),
    "nothing waits": ("Nothing waits for a person.", "没有等待人工处理的事项。"),
    "open contests": ("{open} contested, {overdue} overdue", "{open} 项异议，{overdue} 项逾期"),
    "contests": ("Contested decisions", "被提出异议的决策"),
    "no contests": ("No contested decision is open.", "没有未处理的异议。"),
    "request": ("Request", "请求"),
    "opened": ("Contested", "提出时间"),
    "deadline": ("To be decided by", "处理期限"),
    "outcome": ("Outcome", "结果"),
    "open": ("open", "未处理"),
    "overdue": ("overdue", "逾期"),
    "metrics": ("Metrics by group", "各群体的指标"),
    "metric": ("Metric", "指标"),
    "attribute": ("Attribute", "属性"),
    "group": ("Group", "群体"),
    "against": ("Against", "对照"),
    "value": ("Value", "值"),
    "interval": ("Interval", "区间"),
    "bounds": ("Allowed", "允许范围"),
    "groups": ("Groups", "群体"),
    "rows": ("Rows", "行数"),
    "favourable": ("Favourable", "有利结果"),
    "rate": ("Rate", "比率"),
    "gates": ("Gate table", "门限表"),
    "gate": ("Gate", "门限"),
    "measured": ("Measured", "实测"),
    "budget": ("Budget", "预算"),
    "message": ("In words", "说明"),
    "revisions": ("Revisions and canary", "修订版与金丝雀"),
    "revision": ("Revision", "修订版"),
    "pod": ("Pod", "实例"),
    "ready": ("Ready", "就绪"),
    "requests": ("Requests", "请求数"),
    "errors": ("Failed", "失败"),
    "yes": ("yes", "是"),
    "no": ("no", "否"),
    "conditions": ("Conditions", "状况"),
    "condition": ("Condition", "状况"),
    "reason": ("Reason", "原因"),
    "drift": ("Drift and other alarms", "漂移及其他警报"),
    "report": ("The report with its charts", "含图表的报告"),
    "find": ("Look up a decision", "查找决策"),
    "find hint": (
        "The id of a request, as its answer gave it.",
        "请求的编号，见其应答。",
    ),
    "any model": ("any model", "任一模型"),
    "model": ("Model", "模型"),
    "look up": ("Look up", "查找"),
    "not found": (
        "No signed ledger entry has the id {id}. An entry comes seconds after its answer.",
        "没有编号为 {id} 的已签名账本条目；条目在应答后数秒内出现。",
    ),
    "inputs": ("Inputs, as they were masked", "输入（已脱敏）"),
    "outputs": ("Output", "输出"),
    "feature": ("Field", "字段"),
    "explanation": ("Explanation", "解释"),
    "no explanation": ("The ledger has no explanation of this decision.", "账本中没有此决策的解释。"),
    "attribution": ("Attribution", "归因"),
    "change": ("{feature}: {before} → {after}", "{feature}：{before} → {after}"),
    "method": ("Method", "方法"),
    "target": ("Target", "目标"),
    "base value": ("Base value", "基准值"),
    "records": ("Ledger entries and proofs", "账本条目与证明"),
    "index": ("Entry", "条目"),
    "type": ("Type", "类型"),
    "time": ("Time", "时间"),
    "proof": ("Inclusion proof of entry {index} of {size}", "第 {index} 条（共 {size} 条）的包含证明"),
    "hashes": ("Sibling hashes, from the leaf to the root", "从叶到根的兄弟哈希"),
    "origin": ("Origin", "来源"),
    "size": ("Size", "大小"),
    "root": ("Root", "根"),
    "signed by": ("Signed by", "签名者"),
    "cosigned": ("Cosigned by witnesses", "见证人联署"),
    "cosigned size": ("{size} entries", "{size} 条"),
    "verified": ("Recomputed", "重新计算"),
    "does verify": ("verified", "已核实"),
    "does not verify": ("does not verify", "未能核实"),
    "no checkpoint": ("No checkpoint has been signed yet.", "尚无已签名的检查点。"),
    "recent": ("Newest entries by type", "各类型最新条目"),
    "count": ("Count", "数量"),
    "clause": ("Clause", "法条"),
    "asks": ("Asks for", "要求"),
    "evidence": ("Evidence", "证据"),
    "no judgement": (
        "A verdict says whether evidence is present and current. It is no legal judgement.",
        "判定仅说明证据是否存在且有效，并非法律判断。",
    ),
    "present": ("present", "具备"),
    "outdated": ("outdated", "过期"),
    "contradicted": ("contradicted", "相矛盾"),
    "missing": ("missing", "缺失"),
}


def chosen(asked: str, accepted: str) -> Language:
    """By ``?lang=``, else by the Accept-Language field: the first that is known."""
    primary = [part.partition(";")[0].strip().lower().partition("-")[0] for part in accepted.split(",")[:16]]
    return next((one for word in (asked, *primary) for one in LANGUAGES if word == one), "en")


class Words:
    """Of one page in one language. ``asked``: it was asked for in the address, and links keep it; ``model``: that the
    address names beside it."""

    def __init__(self, language: Language, *, asked: bool = False, model: str = ""):
        self.language, self.asked, self.model = language, asked, model
        self.incomplete = False
        """A part of the page was still being recomputed."""
        self._place = LANGUAGES.index(language)

    def __call__(self, key: str, **values: object) -> str:
        return WORDS[key][self._place].format(**values)

    def known(self, word: str) -> str:
        """A word of the contract translated; one that isn't known as it is."""
        return self(word) if "{" not in WORDS.get(word, ("{", ""))[0] else word
