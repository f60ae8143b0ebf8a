package desk

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/gorilla/mux"

	"github.com/holdfast-io/holdfast/framework/marathon/document"
)

// Table is the one list of the API's routes: requests are routed by it, and the OpenAPI document is printed from it.
type Table struct {
	router *mux.Router
	routes []route
}

type route struct {
	method, path, summary string
	query                 []string
}

// NewTable gives an empty table over a router.
func NewTable(r *mux.Router) *Table { return &Table{router: r} }

// Handle adds a route. The path is the router's, with variables in braces; what comes first wins. query names the parameters that
// it takes. A route for GET serves HEAD too, unless its answer never ends.
func (t *Table) Handle(method, path, summary string, f http.HandlerFunc, query ...string) {
	methods := []string{method}
	if method == http.MethodGet && !strings.HasSuffix(path, "/events") && !strings.HasSuffix(path, "/logs") {
		methods = append(methods, http.MethodHead)
	}
	t.router.HandleFunc(path, f).Methods(methods...)
	t.routes = append(t.routes, route{method, path, summary, query})
}

// variable is a part of a path that is not fixed, with or without a pattern.
var variable = regexp.MustCompile(`\{(\w+)(:[^}]*)?\}`)

// OpenAPIPath is a route's path without patterns, as the document has it.
func OpenAPIPath(path string) string { return variable.ReplaceAllString(path, "{$1}") }

type object = map[string]any

// OpenAPI prints the table as an OpenAPI 3.0 document. Bodies are described in words only: docs/apps.md, docs/marathon.md.
func (t *Table) OpenAPI(version string) []byte {
	paths := object{}
	for _, r := range t.routes {
		path := OpenAPIPath(r.path)
		item, _ := paths[path].(object)
		if item == nil {
			item = object{}
			paths[path] = item
		}
		item[strings.ToLower(r.method)] = r.operation()
	}
	return document.Marshal(object{"openapi": "3.0.3", "info": object{"title": "Holdfast", "version": version,
		"description": "/v2 is Marathon's API, /v1 has what Marathon has no place for. An error is an object with message, and details with the paths that are wrong."}, "paths": paths})
}

func (r *route) operation() object {
	content := object{"application/json": object{"schema": object{}}}
	op := object{"summary": r.summary, "responses": object{
		"default": object{"description": "the answer, or an error with message and details", "content": content},
	}}
	params := []object{}
	for _, v := range variable.FindAllStringSubmatch(r.path, -1) {
		params = append(params, object{"name": v[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, q := range r.query {
		params = append(params, object{"name": q, "in": "query", "schema": object{"type": "string"}})
	}
	if len(params) > 0 {
		op["parameters"] = params
	}
	if r.method == http.MethodPost || r.method == http.MethodPut || r.method == http.MethodPatch {
		op["requestBody"] = object{"content": content}
	}
	return op
}
