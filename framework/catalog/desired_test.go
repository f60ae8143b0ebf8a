package catalog

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

func TestValid(t *testing.T) {
	for text, want := range map[string]string{
		"/prod/db": "prod-db", "/db": "db", "My_DB": "my-db", "/a.b/c": "a-b-c", "": "x", "///": "x", "-a-": "a", "übung": "bung", "日本": "x",
		strings.Repeat("a", 63): strings.Repeat("a", 63),
	} {
		if got := valid(text); got != want {
			t.Errorf("%q is made %q, not %q", text, got, want)
		}
	}
	label := regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	for _, text := range []string{strings.Repeat("a", 64), strings.Repeat("a", 63) + "b", strings.Repeat("a-", 100), "a\x00b", "\xff\xfe", strings.Repeat("é", 50)} {
		if got := valid(text); !label.MatchString(got) {
			t.Errorf("%q is made %q", text, got)
		}
	}
	if valid(strings.Repeat("a", 64)) == valid(strings.Repeat("a", 65)) {
		t.Error("long names that differ at the end are the same")
	}
}

func derived(app string) source { return source{text: app, owner: app} }

func TestNames(t *testing.T) {
	sources := func(list ...source) map[source]bool {
		out := map[source]bool{}
		for _, s := range list {
			out[s] = true
		}
		return out
	}
	slash, hyphen, given, odd := derived("/a/b"), derived("/a-b"), source{text: "a-b"}, source{text: "A_b"}
	for _, c := range []struct {
		name    string
		sources map[source]bool
		plain   []source
	}{
		{"alone", sources(slash), []source{slash}},
		{"two ids", sources(slash, hyphen), nil},
		{"given and derived", sources(slash, given), []source{given}},
		{"given, given oddly, derived", sources(slash, hyphen, given, odd), []source{given}},
		{"both given oddly", sources(odd, source{text: "a_B"}), nil},
	} {
		got := names(c.sources)
		used := map[string]source{}
		for s, name := range got {
			if other, ok := used[name]; ok {
				t.Errorf("%s: %v and %v are both %s", c.name, s, other, name)
			}
			used[name] = s
			if plain := name == "a-b"; plain != slices.Contains(c.plain, s) {
				t.Errorf("%s: %v is %s", c.name, s, name)
			}
			if !strings.HasPrefix(name, "a-b") {
				t.Errorf("%s: %v is %s", c.name, s, name)
			}
		}
	}
	// Somebody takes the very name that a collision leads to.
	all := sources(slash, hyphen)
	taken := source{text: names(all)[slash]}
	all[taken] = true
	got := names(all)
	if got[taken] != taken.text || got[slash] == taken.text || got[slash] == got[hyphen] {
		t.Errorf("%v", got)
	}
	all[derived("/"+got[slash])] = true
	again := names(all)
	if unique := map[string]bool{}; !func() bool {
		for _, n := range again {
			if unique[n] {
				return false
			}
			unique[n] = true
		}
		return true
	}() {
		t.Errorf("%v", again)
	}
}

// TestNamesNeverCollide makes names of random sources that are much alike.
func TestNamesNeverCollide(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 2))
	label := regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	word := func() string {
		const letters = "ab/-_.Aü"
		out := make([]rune, rng.IntN(4))
		for i := range out {
			out[i] = []rune(letters)[rng.IntN(8)]
		}
		if rng.IntN(10) == 0 {
			return strings.Repeat("a-", 31) + string(out)
		}
		return string(out)
	}
	for range 200 {
		sources := map[source]bool{}
		for range 40 {
			s := source{text: word()}
			if rng.IntN(2) == 0 {
				s.owner = word()
			}
			sources[s] = true
		}
		got := names(sources)
		for _, name := range got { // names that collisions lead to are taken as well
			if rng.IntN(5) == 0 {
				sources[derived("/"+name)] = true
			}
		}
		got = names(sources)
		used := map[string]source{}
		for s, name := range got {
			if other, ok := used[name]; ok || !label.MatchString(name) || s.exact() && s.text != name {
				t.Fatalf("seed %d: %q for %+v and %+v", seed, name, s, other)
			}
			used[name] = s
		}
		if !maps.Equal(got, names(sources)) {
			t.Fatalf("seed %d: not the same twice", seed)
		}
	}
}

// outlined gives name, port and tags of each service of a definition.
func outlined(spec state.Spec, source string) (out []string) {
	for _, s := range outlineOf(&state.Def{App: "/prod/db", Version: "v1", Spec: spec, Source: json.RawMessage(source)}).services {
		port := "-"
		if s.port >= 0 {
			port = string(rune('0' + s.port%10))
		}
		out = append(out, valid(s.source.text)+":"+port+" "+strings.Join(s.tags, ","))
	}
	return out
}

func TestOutline(t *testing.T) {
	labels := func(kv ...string) map[string]string {
		out := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			out[kv[i]] = kv[i+1]
		}
		return out
	}
	one := []state.Port{{Name: "sql", Protocol: "tcp"}}
	two := []state.Port{{Name: "sql", Protocol: "tcp"}, {Name: "http", Protocol: "udp"}, {Protocol: "tcp", ContainerPort: 99}}
	for _, c := range []struct {
		name   string
		spec   state.Spec
		source string
		want   []string
	}{
		{"no port", state.Spec{}, "", []string{"prod-db:- "}},
		{"one port", state.Spec{Ports: one}, "", []string{"prod-db:0 "}},
		{"several ports", state.Spec{Ports: two}, "", []string{"prod-db:0 ", "prod-db-sql:0 ", "prod-db-http:1 udp"}},
		{"marathon-consul: off", state.Spec{Ports: one, Labels: labels("consul", "false")}, "", nil},
		{"marathon-consul: on", state.Spec{Ports: one, Labels: labels("consul", "true")}, "", []string{"prod-db:0 "}},
		{"marathon-consul: name and tag", state.Spec{Ports: one, Labels: labels("consul", "Main_DB", "fast", "tag", "other", "x")}, "", []string{"main-db:0 fast"}},
		{"marathon-consul: ports", state.Spec{Ports: []state.Port{{Labels: labels("consul", "false")}, {Name: "b", Labels: labels("consul", "bee", "x", "tag")}}}, "", []string{"prod-db:1 x", "bee:1 x"}},
		{"mesos-consul: tags", state.Spec{Ports: one, Labels: labels("tags", "a, b,,a")}, "", []string{"prod-db:0 a,b"}},
		{"registrator", state.Spec{Ports: two, Labels: labels("SERVICE_NAME", "db", "SERVICE_TAGS", "a", "SERVICE_99_NAME", "admin", "SERVICE_99_TAGS", "z")}, "",
			[]string{"db:0 a", "db-sql:0 a", "db-http:1 a,udp", "admin:2 a,z"}},
		{"registrator in the environment", state.Spec{Ports: one, Env: labels("SERVICE_NAME", "db", "SERVICE_PASSWORD", "secret")}, "", []string{"db:0 "}},
		{"registrator: ignore", state.Spec{Ports: one, Labels: labels("SERVICE_IGNORE", "yes")}, "", nil},
		{"registrator: ignore a port", state.Spec{Ports: two, Labels: labels("SERVICE_99_IGNORE", "1", "SERVICE_99_NAME", "admin")}, "", []string{"prod-db:0 ", "prod-db-sql:0 ", "prod-db-http:1 udp"}},
		{"reserved tags", state.Spec{Ports: one, Labels: labels("tags", "instance-0,Primary,Instance-7,instance-x")}, "", []string{"prod-db:0 instance-x"}},
		{"container's address", state.Spec{Container: state.Container{Network: "container"}}, `{"container":{"portMappings":[{"containerPort":80,"name":"web"}]}}`, []string{"prod-db:0 "}},
		{"source that is no JSON", state.Spec{Container: state.Container{Network: "container"}}, `{"container":{"portMappings":[{"containerPort":"x"`, []string{"prod-db:- "}},
	} {
		if got := outlined(c.spec, c.source); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, not %q", c.name, got, c.want)
		}
	}
	meta := userMeta(labels("SERVICE_REGION", "eu", "SERVICE_NAME", "x", "SERVICE_80_NAME", "y", "SERVICE_HOLDFAST_CLUSTER", "z", "SERVICE_CONSUL-X", "z", "SERVICE_A B", "z", "SERVICE_LONG", strings.Repeat("x", 600), "OTHER", "o"))
	if !maps.Equal(meta, labels("region", "eu")) {
		t.Errorf("meta %v", meta)
	}
}

func TestDesired(t *testing.T) {
	c := newCore()
	yes, no := true, false
	c.app("/prod/db", state.Spec{Ports: []state.Port{{Name: "sql"}}, HealthChecks: []state.HealthCheck{{}}})
	c.set(state.KindVolume, "u1", &state.Volume{UID: "u1", App: "/prod/db", Instance: "prod_db.0"})
	healthy := func(h *bool) func(*state.Instance) { return func(i *state.Instance) { i.Run.Healthy = h } }
	c.runs("/prod/db", 0, "h1.example", healthy(&yes))
	c.runs("/prod/db", 1, "h2.example", healthy(&no))
	c.runs("/prod/db", 2, "192.0.2.7", healthy(nil))
	c.runs("/prod/db", 3, "h1.example", func(i *state.Instance) { i.Phase = state.PhaseKilling })
	c.runs("/prod/db", 4, "h1.example", func(i *state.Instance) { i.Phase = state.PhaseLost })
	c.runs("/prod/db", 5, "dead", func(i *state.Instance) { i.Run.Node, i.Run.Claims = "n5", []state.Grant{{}} })
	c.set(state.KindNode, "n5", &state.Node{UID: "n5"})
	c.runs("/prod/db", 6, "gone")
	c.set(state.KindAgent, "agent-gone", &state.Agent{ID: "agent-gone", LostAt: state.Instance{}.CreatedAt.AddDate(1, 0, 0)})
	c.runs("/prod/db", 7, "bad host", func(i *state.Instance) { i.Run.AgentURL = "" })
	w := Desired(c.s, cluster)
	got := map[string]string{}
	for k, s := range w.Services {
		got[k.Node+" "+k.ID] = s.Name + " " + s.Address + " " + s.Status + " " + strings.Join(s.Tags, ",")
	}
	want := map[string]string{
		"holdfast-0a1b2c3d-h1-example holdfast-0a1b2c3d-prod_db.0": "prod-db 10.0.0.9 passing instance-0",
		"holdfast-0a1b2c3d-h2-example holdfast-0a1b2c3d-prod_db.1": "prod-db 10.0.0.9 critical instance-1",
		"holdfast-0a1b2c3d-192-0-2-7 holdfast-0a1b2c3d-prod_db.2":  "prod-db 192.0.2.7 warning instance-2",
	}
	if !maps.Equal(got, want) {
		t.Errorf("%q", got)
	}
	meta := w.Services[Key{"holdfast-0a1b2c3d-h1-example", "holdfast-0a1b2c3d-prod_db.0"}].Meta
	if meta[metaCluster] != cluster || meta[metaApp] != "/prod/db" || meta[metaInstance] != "prod_db.0" || meta[metaTask] != "prod_db.0.1-abcdef" || meta[metaVersion] != "v1" {
		t.Errorf("meta %v", meta)
	}
}

func TestContainerAddress(t *testing.T) {
	c := newCore()
	source := json.RawMessage(`{"container":{"portMappings":[{"containerPort":8080,"name":"web"}]}}`)
	spec := state.Spec{Container: state.Container{Network: "container"}}
	c.set(state.KindDef, "/w v1", &state.Def{App: "/w", Version: "v1", Spec: spec, Source: source})
	c.set(state.KindApp, "/w", &state.App{ID: "/w", Version: "v1"})
	c.runs("/w", 0, "h")
	if w := Desired(c.s, cluster); len(w.Services) != 0 {
		t.Errorf("registered before its address is known: %v", w.Services)
	}
	c.runs("/w", 0, "h", func(i *state.Instance) { i.Run.ContainerIP = "172.17.0.2" })
	for _, s := range Desired(c.s, cluster).Services {
		if s.Address != "172.17.0.2" || s.Port != 8080 {
			t.Errorf("%+v", s)
		}
	}
}
