// Package schema holds the JSON Schema of app definitions, for editors and other programs. The rules are in package rule: a schema cannot say them
// all, and tests hold it to accept every document that they accept.
package schema

import _ "embed"

// App is the schema of one app, a JSON document.
//
//go:embed app.json
var App []byte
