package marathon

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/framework/marathon/schema"
)

func appSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema.App))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("app.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("app.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, what string, data []byte) error {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return s.Validate(v)
}

// Whatever is read as an app is valid by the schema too, as given and as printed; what misses a type is not.
func TestSchema(t *testing.T) {
	s := appSchema(t)
	files, err := filepath.Glob("../../examples/*/app.json")
	if err != nil || len(files) < 4 {
		t.Fatalf("examples: %v %v", files, err)
	}
	dir := corpusDir(t)
	needs := corpusNeeds(t, dir)
	files = append(files, corpusFiles(t, dir, "valid/app-*.json")...)
	for _, file := range files {
		name := filepath.Base(file)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if isUpdate(name) { // has no id
			continue
		}
		if err := validate(t, s, name, data); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		a, err := readDocument(name, data, optionsFor(needs[name]))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if err := validate(t, s, name, a.JSON()); err != nil {
			t.Errorf("%s as printed: %v", file, err)
		}
	}
	for _, text := range []string{`{"cmd":"x"}`, `{"id":"a","instances":"2"}`, `{"id":"a","container":{"volumes":[{"mode":"RW"}]}}`, `{"id":"a","killSelection":"x"}`,
		`{"id":"a","container":{"volumes":[{"containerPath":"d","external":{"name":"v","retain":{"onDelete":"burn"}}}]}}`, `{"id":"/A"}`} {
		if validate(t, s, text, []byte(text)) == nil {
			t.Errorf("%s is valid", text)
		}
	}
}

// Every field of the schema is one that is read: none is unknown to the decoder, at any depth.
func TestSchemaFieldsAreRead(t *testing.T) {
	var root map[string]any
	if err := json.Unmarshal(schema.App, &root); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(specimen(root, ""))
	if err != nil {
		t.Fatal(err)
	}
	v, err := document.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	run := &document.Run{}
	definition.Decode(run, v, true)
	for _, w := range run.Warnings {
		if strings.Contains(w, "unknown field") && !strings.Contains(w, "external/options") {
			t.Errorf("%s", w)
		}
	}
}

// specimen makes a value with every field that a schema names.
func specimen(s map[string]any, name string) any {
	if words, ok := s["enum"].([]any); ok {
		return words[0]
	}
	kind, _ := s["type"].(string)
	if kinds, ok := s["type"].([]any); ok {
		kind, _ = kinds[0].(string)
	}
	switch kind {
	case "object":
		out := map[string]any{}
		props, _ := s["properties"].(map[string]any)
		for k, p := range props {
			// One of the four kinds of volume, and one of the ways to name a source.
			if name == "volumes" && (k == "hostPath" || k == "persistent" || k == "secret") {
				continue
			}
			out[k] = specimen(p.(map[string]any), k)
		}
		return out
	case "array":
		items, _ := s["items"].(map[string]any)
		return []any{specimen(items, name)}
	case "integer", "number":
		return 50
	case "boolean":
		return true
	}
	return "x"
}
