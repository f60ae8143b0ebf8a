package dcos

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// The forms that the Universe's schema (mesosphere/universe, repo/meta/schema) asks for.
var (
	nameForm    = regexp.MustCompile(`^[a-z][a-z0-9-]*[a-z0-9]$`)
	versionForm = regexp.MustCompile(`^[-a-zA-Z0-9.]+$`)
	releaseForm = regexp.MustCompile(`^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*$`)
	urlForm     = regexp.MustCompile(`^https?://[^\s]+$`)
	tagForm     = regexp.MustCompile(`^\S+$`)
)

// known are the members of package.json (packaging version 4.0) and their JSON types.
var known = map[string]string{
	"packagingVersion": "string", "name": "string", "version": "string", "scm": "string", "maintainer": "string", "website": "string",
	"description": "string", "framework": "bool", "upgradesFrom": "strings", "downgradesTo": "strings", "preInstallNotes": "string",
	"postInstallNotes": "string", "postUninstallNotes": "string", "tags": "strings", "selected": "bool", "licenses": "list",
	"minDcosReleaseVersion": "string", "hasKnownIssues": "bool", "lastUpdated": "number",
}

// check holds the files to the rules of the Universe that a schema of ours can say in code: it names the first member that breaks one.
func (p *Package) check() error {
	bad := func(at string, v any, want string) error {
		return fault.New(fault.Invalid, "package.json: %s is %v: %s", at, v, want)
	}
	for _, need := range []string{"packagingVersion", "name", "version", "maintainer", "description", "tags"} {
		if _, ok := p.Definition[need]; !ok {
			return bad(need, "missing", "it is needed")
		}
	}
	for k, v := range p.Definition {
		if want, ok := known[k]; !ok {
			return bad(k, v, "packaging version 4.0 has no such member")
		} else if !isA(v, want) {
			return bad(k, v, "it must be of type "+want)
		}
	}
	for _, f := range []struct {
		name string
		form *regexp.Regexp
	}{{"name", nameForm}, {"version", versionForm}, {"minDcosReleaseVersion", releaseForm}} {
		if v, ok := p.Definition[f.name]; ok && !f.form.MatchString(v.(string)) {
			return bad(f.name, v, "it must match "+f.form.String())
		}
	}
	if v := p.Definition["packagingVersion"]; v != "4.0" {
		return bad("packagingVersion", v, "4.0 is kept, 5.0 is made of it")
	}
	for _, t := range p.Definition["tags"].([]any) {
		if !tagForm.MatchString(t.(string)) {
			return bad("tags", t, "a tag has no white space")
		}
	}
	if err := p.checkLicenses(bad); err != nil {
		return err
	}
	return p.checkResource()
}

func (p *Package) checkLicenses(bad func(string, any, string) error) error {
	list, _ := p.Definition["licenses"].([]any)
	for i, v := range list {
		l, ok := v.(map[string]any)
		name, _ := l["name"].(string)
		url, _ := l["url"].(string)
		if !ok || name == "" || !urlForm.MatchString(url) || len(l) != 2 {
			return bad(fmt.Sprintf("licenses[%d]", i), v, "a name and an http(s) url, and nothing else")
		}
	}
	return nil
}

// checkResource: assets and images are URLs by name.
func (p *Package) checkResource() error {
	for k, v := range p.Resource {
		m, ok := v.(map[string]any)
		if !ok || !slices.Contains([]string{"assets", "images", "cli"}, k) {
			return fault.New(fault.Invalid, "resource.json: %s is %v: objects assets, images and cli are known", k, v)
		}
		if k == "assets" {
			uris, _ := m["uris"].(map[string]any)
			if len(uris) == 0 || len(m) != 1 {
				return fault.New(fault.Invalid, "resource.json: assets holds uris and nothing else here")
			}
			m = uris
		}
		for name, url := range m {
			if s, ok := url.(string); !ok || !urlForm.MatchString(s) {
				return fault.New(fault.Invalid, "resource.json: %s.%s is %v: it must be an http(s) URL", k, name, url)
			}
		}
	}
	if strings.TrimSpace(p.Template) == "" {
		return fault.New(fault.Invalid, "marathon.json.mustache is empty")
	}
	return nil
}

func isA(v any, want string) bool {
	switch v := v.(type) {
	case string:
		return want == "string"
	case bool:
		return want == "bool"
	case float64:
		return want == "number"
	case []any:
		return want == "list" || want == "strings" && !slices.ContainsFunc(v, func(e any) bool { _, ok := e.(string); return !ok })
	}
	return false
}
