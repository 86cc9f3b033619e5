// Command gitops-judge says how GitOps tools read objects of a cluster: kstatus (Flux, kpt), Argo CD's diff and its health scripts.
//
//	gitops-judge kstatus             object on stdin                 {"status": "InProgress", "message": …}
//	gitops-judge health health.lua   object on stdin                 {"status": "Healthy", "message": …}
//	gitops-judge diff                {"target": …, "live": …}        {"modified": false, "live": …, "predicted": …}
//
// Of gitops-engine only pkg/diff is used: the rest of its v0.7.3 doesn't compile beside kstatus' Kubernetes libraries.
// Everything is JSON. An error goes to stderr, with exit code 1.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/argoproj/gitops-engine/pkg/diff"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

type object = map[string]interface{}

func main() {
	answer, err := judge(os.Args[1:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(answer)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gitops-judge:", err)
		os.Exit(1)
	}
}

func judge(args []string) (interface{}, error) {
	switch {
	case len(args) == 1 && args[0] == "kstatus":
		return kstatus()
	case len(args) == 1 && args[0] == "diff":
		return difference()
	case len(args) == 2 && args[0] == "health":
		return healthOf(args[1])
	}
	return nil, fmt.Errorf("expected kstatus, diff or health FILE, found %q", args)
}

func read(into interface{}) error {
	if err := json.NewDecoder(os.Stdin).Decode(into); err != nil {
		return fmt.Errorf("stdin: expected JSON: %w", err)
	}
	return nil
}

// readObject keeps whole numbers as int64, as objects from an API server have them.
func readObject() (*unstructured.Unstructured, error) {
	var raw json.RawMessage
	if err := read(&raw); err != nil {
		return nil, err
	}
	out := &unstructured.Unstructured{}
	return out, out.UnmarshalJSON(raw)
}

func kstatus() (interface{}, error) {
	found, err := readObject()
	if err != nil {
		return nil, err
	}
	result, err := status.Compute(found)
	if err != nil {
		return nil, err
	}
	return object{"status": result.Status.String(), "message": result.Message}, nil
}

func healthOf(script string) (interface{}, error) {
	text, err := os.ReadFile(script)
	if err != nil {
		return nil, err
	}
	found, err := readObject()
	if err != nil {
		return nil, err
	}
	return luaHealth(string(text), found)
}

func difference() (interface{}, error) {
	var pair struct{ Target, Live object }
	if err := read(&pair); err != nil {
		return nil, err
	}
	result, err := diff.Diff(&unstructured.Unstructured{Object: pair.Target}, &unstructured.Unstructured{Object: pair.Live})
	if err != nil {
		return nil, err
	}
	return object{
		"modified":  result.Modified,
		"live":      json.RawMessage(result.NormalizedLive),
		"predicted": json.RawMessage(result.PredictedLive),
	}, nil
}
