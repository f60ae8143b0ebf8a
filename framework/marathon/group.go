package marathon

import (
	"fmt"
	"strings"

	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/framework/marathon/rule"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// Group is what a request says of a group: members that are absent stay as they are, those that are there replace what was.
type Group struct {
	ID string // absolute
	// Apps are the apps directly in it, Groups its direct subgroups. The flags tell "none" from "nothing said".
	Apps            []GroupApp
	HasApps         bool
	Groups          []*Group
	HasGroups       bool
	Dependencies    []string // absolute
	HasDependencies bool
	EnforceRole     *bool
	// ScaleBy and Version stand alone: all apps below times a factor, and a return to an older version.
	ScaleBy *float64
	Version *string
}

// GroupApp is an app of a group.
type GroupApp struct {
	ID    string          // absolute
	At    string          // its place in the document, "/groups(0)/apps(1)"
	Value *document.Value // the app, its ids made absolute
	App   *App
}

// groupReader reads a tree of groups; problems of the document's shape and of the rules are kept apart, as Marathon reports them.
type groupReader struct {
	o            Options
	run          document.Run
	rules, shape document.Problems
	warnings     []string
}

// ReadGroup reads a group and everything in it. base is the group that a relative id is below; where the document has no id it is
// base itself. Errors are those of Read, with the apps' paths.
func ReadGroup(v *document.Value, base string, o Options) (g *Group, warnings []string, err error) {
	r := &groupReader{o: o}
	if v.Kind != document.Object {
		r.run.Problems.Add("/", "error.expected.jsobject")
	} else {
		g = r.group(r.run.Read(v), "", func(id *string) string {
			if id == nil {
				return AbsoluteID(base)
			}
			return against(base, *id)
		})
	}
	for _, d := range r.shape.Details() {
		for _, e := range d.Errors {
			r.run.Problems.Add(d.Path, e)
		}
	}
	warnings = append(r.run.Warnings, r.warnings...)
	if err := r.run.Problems.Err(messageShape); err != nil {
		return nil, warnings, err
	}
	return g, warnings, r.rules.Err(messageRules)
}

// against makes an id absolute: against a group when it is relative.
func against(group, id string) string {
	if strings.HasPrefix(id, "/") {
		return AbsoluteID(id)
	}
	return AbsoluteID(group + "/" + id)
}

func parentOf(id string) string {
	if i := strings.LastIndexByte(id, '/'); i > 0 {
		return id[:i]
	}
	return "/"
}

func (r *groupReader) group(in *document.Reader, at string, name func(*string) string) *Group {
	g := &Group{ID: name(in.Str("id")), EnforceRole: in.Flag("enforceRole"), ScaleBy: in.Num("scaleBy", 0), Version: in.Str("version")}
	if g.ID != "/" && !rule.ValidID(g.ID) {
		r.rules.Add(at+"/id", rule.SegmentError)
	}
	if deps := in.Strs("dependencies"); deps != nil {
		g.HasDependencies = true
		for _, d := range deps {
			g.Dependencies = append(g.Dependencies, against(g.ID, d))
		}
	}
	g.HasApps = in.Items("apps", func(path string, v *document.Value) {
		if app, ok := r.app(g.ID, path, v); ok {
			g.Apps = append(g.Apps, app)
		}
	})
	g.HasGroups = in.Each("groups", func(sub *document.Reader) {
		subAt := strings.TrimSuffix(sub.Path(""), "/")
		sub.Require("id")
		child := r.group(sub, subAt, func(id *string) string {
			if id == nil {
				return g.ID
			}
			return against(g.ID, *id)
		})
		if child.ID == "/" || parentOf(child.ID) != g.ID {
			r.rules.Add(subAt+"/id", fmt.Sprintf("Identifier is not child of '%s'", g.ID))
		}
		g.Groups = append(g.Groups, child)
	})
	in.Items("pods", func(path string, _ *document.Value) {
		r.rules.Add(path, "pods in groups are not supported by this version of Holdfast; use /v2/pods")
	})
	r.alone(g, at)
	if at == "" {
		in.Close()
	}
	return g
}

// alone holds the rules on what may not stand beside other members.
func (r *groupReader) alone(g *Group, at string) {
	others := g.HasApps || g.HasGroups || g.HasDependencies
	const text = "not allowed in conjunction with other properties."
	if g.Version != nil && (others || g.ScaleBy != nil) {
		r.rules.Add(at+"/version", text)
	}
	if g.ScaleBy != nil && (others || g.Version != nil) {
		r.rules.Add(at+"/scaleBy", text)
	}
	if at == "" || others {
		return
	}
	for name, given := range map[string]bool{"/version": g.Version != nil, "/scaleBy": g.ScaleBy != nil} {
		if given {
			r.rules.Add(at+name, "is allowed for the outermost group only")
		}
	}
}

// app reads one app of a group.
func (r *groupReader) app(group, at string, v *document.Value) (GroupApp, bool) {
	if v.Kind != document.Object {
		r.run.Problems.Add(at, "error.expected.jsobject")
		return GroupApp{}, false
	}
	out := GroupApp{At: at, Value: v}
	if id := v.Fields["id"]; id != nil && id.Kind == document.String {
		out.ID = against(group, id.Text)
		v.Set("id", &document.Value{Kind: document.String, Text: out.ID})
		if parentOf(out.ID) != group {
			r.rules.Add(at+"/id", fmt.Sprintf("Identifier is not child of '%s'", group))
		}
	}
	if deps := v.Fields["dependencies"]; deps != nil {
		for _, d := range deps.List {
			if d.Kind == document.String {
				d.Text = against(group, d.Text)
			}
		}
	}
	a, warnings, err := Read(v, r.o)
	r.warnings = append(r.warnings, warnings...)
	if err == nil {
		err = a.Unsupported()
	}
	out.App = a
	if err != nil {
		r.refused(at, err)
	}
	return out, true
}

// refused puts the errors of an app among those of the group.
func (r *groupReader) refused(at string, err error) {
	to := &r.rules
	if strings.HasPrefix(err.Error(), messageShape) {
		to = &r.shape
	}
	details := fault.DetailsOf(err)
	if len(details) == 0 {
		to.Add(at, err.Error())
	}
	for _, d := range details {
		path := at + d.Path
		if d.Path == "/" {
			path = at
		}
		for _, e := range d.Errors {
			to.Add(path, e)
		}
	}
}
