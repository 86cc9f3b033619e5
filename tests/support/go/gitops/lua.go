package main

import (
	"context"
	"fmt"
	"time"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

var codes = map[string]bool{
	"Healthy": true, "Progressing": true, "Degraded": true, "Suspended": true, "Missing": true, "Unknown": true,
}

// luaHealth runs a health script as Argo CD does (argo-cd util/lua): the libraries base, package and table alone, one
// second, `obj` as the only input, a table with status and message as the only answer.
func luaHealth(script string, obj *unstructured.Unstructured) (interface{}, error) {
	vm := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer vm.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable,
	} {
		if err := vm.CallByParam(lua.P{Fn: vm.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	vm.SetContext(ctx)
	vm.SetGlobal("obj", toLua(vm, obj.Object))
	if err := vm.DoString(script); err != nil {
		return nil, err
	}
	answer, ok := vm.Get(-1).(*lua.LTable)
	if !ok {
		return nil, fmt.Errorf("the script returned a %s, not a table", vm.Get(-1).Type())
	}
	status, message := lua.LVAsString(answer.RawGetString("status")), lua.LVAsString(answer.RawGetString("message"))
	if !codes[status] {
		return nil, fmt.Errorf("the script returned the status %q", status)
	}
	return object{"status": status, "message": message}, nil
}

func toLua(vm *lua.LState, value interface{}) lua.LValue {
	switch v := value.(type) {
	case bool:
		return lua.LBool(v)
	case float64:
		return lua.LNumber(v)
	case int64:
		return lua.LNumber(v)
	case string:
		return lua.LString(v)
	case []interface{}:
		list := vm.CreateTable(len(v), 0)
		for _, item := range v {
			list.Append(toLua(vm, item))
		}
		return list
	case map[string]interface{}:
		table := vm.CreateTable(0, len(v))
		for key, item := range v {
			table.RawSetH(lua.LString(key), toLua(vm, item))
		}
		return table
	}
	return lua.LNil
}
