// Package dcos is Holdfast's DC/OS (Universe) package: the four files that `dcos package install holdfast` needs, the rules that they are held to,
// and the repository that offers them. Render does what DC/OS's package manager (Cosmos) does with options and
// template, so that what an operator's options come to can be seen and tested without a DC/OS cluster.
package dcos

import (
	"bytes"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cbroglie/mustache"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/holdfast-io/holdfast/internal/fault"
)

//go:embed package.json config.json resource.json marathon.json.mustache
var files embed.FS

// Package is a package whose files have been read and checked.
type Package struct {
	// Definition is package.json, Config config.json (a JSON schema of draft 4), Resource resource.json.
	Definition, Config, Resource map[string]any
	// Template is marathon.json.mustache.
	Template string
	schema   *jsonschema.Schema
}

// Open gives the package of this version of Holdfast, whose assets are below a URL. Invalid when a file breaks a rule of the Universe.
func Open(version, assets string) (*Package, error) {
	if !versionForm.MatchString(version) {
		return nil, fault.New(fault.Invalid, "version %q: letters, digits, dots and dashes are allowed", version)
	}
	return load(files, strings.NewReplacer("@VERSION@", version, "@ASSETS@", strings.TrimSuffix(assets, "/")))
}

func load(from fs.FS, fill *strings.Replacer) (*Package, error) {
	p := &Package{}
	for name, into := range map[string]*map[string]any{"package.json": &p.Definition, "config.json": &p.Config, "resource.json": &p.Resource} {
		raw, err := fs.ReadFile(from, name)
		if err != nil {
			return nil, fault.Wrap(fault.Internal, err, "read %s", name)
		}
		if err := json.Unmarshal([]byte(fill.Replace(string(raw))), into); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "read %s", name)
		}
	}
	raw, err := fs.ReadFile(from, "marathon.json.mustache")
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "read the template")
	}
	p.Template = string(raw)
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft4)
	if err := c.AddResource("config.json", p.Config); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "config.json")
	}
	if p.schema, err = c.Compile("config.json"); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "config.json is no JSON schema")
	}
	return p, p.check()
}

// Options merges what a user gives into the defaults and checks the whole: Invalid names the option, as DC/OS would refuse it.
func (p *Package) Options(user map[string]any) (map[string]any, error) {
	all := merge(defaults(p.Config), user)
	// The validator wants what encoding/json makes of JSON text.
	raw, err := json.Marshal(all)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "options")
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "options")
	}
	if err := p.schema.Validate(doc); err != nil {
		return nil, fault.New(fault.Invalid, "options: %s", reasons(err))
	}
	return all, nil
}

// reasons puts the validator's findings on one line: each names the option and what is allowed.
func reasons(err error) string {
	_, found, ok := strings.Cut(err.Error(), "\n")
	if !ok {
		return err.Error()
	}
	lines := strings.Split(found, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(strings.TrimSpace(l), "- ")
	}
	return strings.Join(lines, "; ")
}

// Render gives the Marathon app that DC/OS would start with a user's options. Labels that DC/OS adds of its own (where the package came from) are
// not in it.
func (p *Package) Render(user map[string]any) (json.RawMessage, error) {
	all, err := p.Options(user)
	if err != nil {
		return nil, err
	}
	values := merge(all, map[string]any{"resource": p.Resource})
	template, err := mustache.ParseStringRaw(p.Template, true)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "marathon.json.mustache")
	}
	text, err := template.Render(encoded(values, false))
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "render marathon.json.mustache")
	}
	var app map[string]any
	if err := json.Unmarshal([]byte(text), &app); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "the rendered app is no JSON object: %s", text)
	}
	return json.RawMessage(text), nil
}

// encoded turns values into what Cosmos gives to the template: strings escaped for JSON and without their quotation marks, but with them inside of a
// list, and a list printed as one (PackageDefinitionRenderer.jsonToJava of dcos/cosmos).
func encoded(v any, inList bool) any {
	switch v := v.(type) {
	case string:
		raw := &bytes.Buffer{}
		e := json.NewEncoder(raw)
		e.SetEscapeHTML(false)
		_ = e.Encode(v) // a string always can
		text := strings.TrimSuffix(raw.String(), "\n")
		if inList {
			return text
		}
		return text[1 : len(text)-1]
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case int:
		return strconv.Itoa(v)
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = fmt.Sprint(encoded(e, true))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = encoded(e, false)
		}
		return out
	}
	return v
}

// defaults takes the defaults out of a schema, as Cosmos does: of properties, and of the properties of objects.
func defaults(schema map[string]any) map[string]any {
	out := map[string]any{}
	properties, _ := schema["properties"].(map[string]any)
	for name, v := range properties {
		property, _ := v.(map[string]any)
		if d, ok := property["default"]; ok {
			out[name] = d
		} else if property["type"] == "object" {
			out[name] = defaults(property)
		}
	}
	return out
}

// merge lays b over a, objects member by member.
func merge(a, b map[string]any) map[string]any {
	out := maps.Clone(a)
	if out == nil {
		out = map[string]any{}
	}
	for k, v := range b {
		below, isObject := out[k].(map[string]any)
		if above, ok := v.(map[string]any); ok && isObject {
			v = merge(below, above)
		}
		out[k] = v
	}
	return out
}

// Formats are the packaging versions that the package is offered in.
func Formats() []string { return []string{"4.0", "5.0"} }

// Repository is a repository with this package alone, as DC/OS reads it. Format is one of Formats; release is the number of
// the package's revision, from 0 on.
func (p *Package) Repository(format string, release int) ([]byte, error) {
	if !slices.Contains(Formats(), format) || release < 0 {
		return nil, fault.New(fault.Invalid, "repository of packaging version %q, release %d: versions %s and releases from 0 on are known", format, release, strings.Join(Formats(), " and "))
	}
	entry := maps.Clone(p.Definition)
	entry["packagingVersion"] = format
	entry["releaseVersion"] = release
	entry["config"] = p.Config
	entry["resource"] = p.Resource
	entry["marathon"] = map[string]any{"v2AppMustacheTemplate": base64.StdEncoding.EncodeToString([]byte(p.Template))}
	if format == "5.0" {
		entry["minDcosReleaseVersion"] = "1.12" // the first that reads it
	}
	return json.Marshal(map[string]any{"packages": []any{entry}})
}

// ContentType is the type with which a repository of a format has to be served: DC/OS reads nothing else.
func ContentType(format string) string {
	major, _, _ := strings.Cut(format, ".")
	return "application/vnd.dcos.universe.repo+json;charset=utf-8;version=v" + major
}
