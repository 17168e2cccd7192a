//go:build ignore

// Writes JSON schemas for kubeconform, one a kind, made from the Go types of Kubernetes' own API: its usual schemas lie on the web, where
// a build may not reach. A field without omitempty is required; a field that no type has is refused.
// Built with validators.mod; arguments: the folder, then kinds as in apps/v1/Deployment (v1/Service for the core).
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
)

func main() {
	folder := os.Args[1]
	for _, kind := range os.Args[2:] {
		at := strings.LastIndex(kind, "/")
		gvk := schema.FromAPIVersionAndKind(kind[:at], kind[at+1:])
		object, err := scheme.Scheme.New(gvk)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		s := describe(reflect.TypeOf(object).Elem(), 0)
		s["required"] = []string{"apiVersion", "kind", "metadata"}
		delete(s["properties"].(map[string]any), "status") // written by the cluster, not by us
		text, err := json.Marshal(s)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		name := strings.ToLower(gvk.Kind)
		if gvk.Group != "" {
			name += "-" + strings.Split(gvk.Group, ".")[0]
		}
		if err := os.WriteFile(filepath.Join(folder, name+"-"+gvk.Version+".json"), text, 0o600); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// describe makes the schema of a type. What says itself how it is written is not looked into.
func describe(t reflect.Type, depth int) map[string]any {
	switch t {
	case reflect.TypeFor[resource.Quantity](), reflect.TypeFor[intstr.IntOrString]():
		return map[string]any{"type": []string{"string", "integer", "number"}}
	case reflect.TypeFor[metav1.Time](), reflect.TypeFor[metav1.MicroTime](), reflect.TypeFor[metav1.Duration]():
		return map[string]any{"type": []string{"string", "null"}}
	case reflect.TypeFor[metav1.FieldsV1]():
		return map[string]any{"type": "object"}
	}
	if depth > 20 { // a schema in a custom resource's definition contains itself; nothing of ours does
		return map[string]any{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return describe(t.Elem(), depth)
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int32, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Float32, reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return map[string]any{"type": "string"}
		}
		return map[string]any{"type": "array", "items": describe(t.Elem(), depth+1)}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": describe(t.Elem(), depth+1)}
	case reflect.Struct:
		properties, required := map[string]any{}, []string{}
		fields(t, depth, properties, &required)
		s := map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
		if len(required) > 0 {
			s["required"] = required
		}
		return s
	}
	return map[string]any{}
}

func fields(t reflect.Type, depth int, properties map[string]any, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			fields(f.Type, depth, properties, required)
			continue
		}
		if name == "" || name == "-" {
			continue
		}
		properties[name] = describe(f.Type, depth+1)
		if !strings.Contains(rest, "omitempty") && !strings.Contains(rest, "omitzero") && !optional(t, f) {
			*required = append(*required, name)
		}
	}
}

// optional says which fields are written by Go always and need not be written by people.
func optional(t reflect.Type, f reflect.StructField) bool {
	return f.Type.Kind() == reflect.Struct && f.Name != "Template" || f.Type == reflect.TypeFor[*metav1.Time]() ||
		t == reflect.TypeFor[metav1.ObjectMeta]()
}
