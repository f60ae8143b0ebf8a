package api_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// TestOpenAPI asks for every path of the document by every method: what the document names is there, and nothing else is.
func TestOpenAPI(t *testing.T) {
	_, srv := serve(t)
	status, text := send(t, srv, http.MethodGet, "/openapi.json", "")
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			Summary    string
			Parameters []struct{ Name, In string }
			Responses  map[string]any
		}
	}
	if err := json.Unmarshal([]byte(text), &doc); status != http.StatusOK || err != nil {
		t.Fatal(status, err)
	}
	if doc.OpenAPI != "3.0.3" || len(doc.Paths) < 40 {
		t.Fatalf("version %s, %d paths", doc.OpenAPI, len(doc.Paths))
	}
	vars := regexp.MustCompile(`\{(\w+)\}`)
	for path, methods := range doc.Paths {
		address := vars.ReplaceAllString(path, "none")
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			op, named := methods[strings.ToLower(method)]
			if strings.HasSuffix(path, "/events") && method == http.MethodGet {
				continue // never ends; other tests read it
			}
			status, text := send(t, srv, method, address, "")
			if !named && strings.Count(path, "/") > 2 && (strings.HasPrefix(path, "/v2/apps/") || strings.HasPrefix(path, "/v2/groups/") || strings.HasPrefix(path, "/v1/")) {
				continue // an id may have slashes: it is taken for the id of an app or group
			}
			if there := status != http.StatusMethodNotAllowed && !strings.Contains(text, "URI not found"); there != named {
				t.Errorf("%s %s: in the document %v, answer %d %.100s", method, path, named, status, text)
			}
			if !named {
				continue
			}
			if op.Summary == "" || len(op.Responses) == 0 {
				t.Errorf("%s %s is not described", method, path)
			}
			for _, v := range vars.FindAllStringSubmatch(path, -1) {
				found := false
				for _, p := range op.Parameters {
					found = found || p.In == "path" && p.Name == v[1]
				}
				if !found {
					t.Errorf("%s %s does not declare %s", method, path, v[1])
				}
			}
		}
	}
}
