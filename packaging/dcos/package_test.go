package dcos

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/internal/fault"
)

func open(t *testing.T) *Package {
	t.Helper()
	p, err := Open("1.2.3", "https://packages.example/holdfast/")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// everything gives a value to each option, some of them hostile to templates and shells.
func everything(t *testing.T, p *Package) map[string]any {
	t.Helper()
	out := map[string]any{}
	for group, v := range p.Config["properties"].(map[string]any) {
		values := map[string]any{}
		for name, v := range v.(map[string]any)["properties"].(map[string]any) {
			if value := sample(name, v.(map[string]any)); value != nil {
				values[name] = value
			}
		}
		out[group] = values
	}
	delete(out["state"].(map[string]any), "secret")
	delete(out["consul"].(map[string]any), "consul-token-secret")
	return out
}

func sample(name string, property map[string]any) any {
	switch pattern, _ := property["pattern"].(string); {
	case name == "name" && pattern != "":
		return "data/holdfast"
	case name == "vip":
		return "data-holdfast:8080"
	case name == "role":
		return "data-role"
	case name == "cluster":
		return "123e4567-e89b-42d3-a456-426614174000"
	case name == "lease-clock-error":
		return "0.05"
	case name == "store", name == "authority":
		return "consuls://consul.example:8501/holdfast/" + name
	case name == "consul":
		return "https://consul.example:8501"
	case pattern == "^[0-9]+(\\.[0-9]+)?$":
		return "7"
	case strings.Contains(pattern, "ns|us"):
		return "90s"
	}
	switch property["type"] {
	case "boolean":
		return true
	case "integer":
		return 2
	case "number":
		if most, ok := property["maximum"].(float64); ok {
			return most
		}
		return max(1.5, property["minimum"].(float64))
	case "array":
		return []any{[]any{"rack", "LIKE", `a"b|c`}, []any{"hostname", "UNIQUE"}}
	}
	if of, ok := property["enum"].([]any); ok {
		return of[len(of)-1]
	}
	return `x "quoted" \ $(touch /tmp/x) {{y}} ` + name
}

func TestRender(t *testing.T) {
	p := open(t)
	all := everything(t, p)
	secrets := map[string]any{
		"service": map[string]any{"service_account": "holdfast-principal", "service_account_secret": "holdfast/key"},
		"state":   map[string]any{"secret": "holdfast/state"}, "consul": map[string]any{"consul": "http://127.0.0.1:8500", "consul-token-secret": "holdfast/consul"}}
	for name, c := range map[string]struct {
		options map[string]any
		secrets []string
		env     map[string]string
	}{
		"defaults": {nil, nil, map[string]string{"MASTER": "zk://zk-1.zk:2181,zk-2.zk:2181,zk-3.zk:2181,zk-4.zk:2181,zk-5.zk:2181/mesos", "ROLE": "holdfast", "NAME": "holdfast", "MASTER_HTTPS": "false",
			"STORE": "zk://zk-1.zk:2181,zk-2.zk:2181,zk-3.zk:2181,zk-4.zk:2181,zk-5.zk:2181/dcos-service-holdfast/store", "CONSUL": "-", "PRINCIPAL": "-"}},
		"everything": {all, []string{"account"}, map[string]string{"STORE": "consuls://consul.example:8501/holdfast/store", "LEASE_DEADLINE": "90s", "MASTER_HTTPS": "true", "LEASE_CLOCK_ERROR": "0.05",
			"CONSUL_DATACENTER": `x "quoted" \ $(touch /tmp/x) {{y}} consul-datacenter`, "SECRET_FILE": "secrets/service-account", "LOG_LEVEL": "error"}},
		"secrets":                     {secrets, []string{"account", "state", "consul"}, map[string]string{"SECRET_FILE": "secrets/service-account", "PRINCIPAL": "holdfast-principal", "STORE_SECRET_FILE": "secrets/state", "AUTHORITY_SECRET_FILE": "secrets/state", "CONSUL_TOKEN_FILE": "secrets/consul"}},
		"consul's secret alone":       {map[string]any{"consul": secrets["consul"]}, []string{"consul"}, map[string]string{"CONSUL_TOKEN_FILE": "secrets/consul", "SECRET_FILE": "-"}},
		"state's and consul's secret": {map[string]any{"consul": secrets["consul"], "state": secrets["state"]}, []string{"state", "consul"}, nil},
		"principal":                   {map[string]any{"mesos": map[string]any{"principal": "p", "secret-file": "/etc/holdfast/secret"}}, nil, map[string]string{"PRINCIPAL": "p", "SECRET_FILE": "/etc/holdfast/secret"}},
		"another":                     {map[string]any{"service": map[string]any{"name": "data/two"}}, nil, map[string]string{"NAME": "data/two", "AUTHORITY": "zk://zk-1.zk:2181,zk-2.zk:2181,zk-3.zk:2181,zk-4.zk:2181,zk-5.zk:2181/dcos-service-data/two/authority"}},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := p.Render(c.options)
			if err != nil {
				t.Fatal(err)
			}
			var app struct {
				Env     map[string]string         `json:"env"`
				Secrets map[string]map[string]any `json:"secrets"`
				Labels  map[string]string         `json:"labels"`
				Fetch   []map[string]any          `json:"fetch"`
			}
			if err := json.Unmarshal(raw, &app); err != nil {
				t.Fatalf("%v\n%s", err, raw)
			}
			for k, want := range c.env {
				got, ok := app.Env["HOLDFAST_FRAMEWORK_"+k]
				if want == "-" && ok || want != "-" && got != want {
					t.Errorf("%s is %q, want %q", k, got, want)
				}
			}
			if len(app.Secrets) != len(c.secrets) {
				t.Errorf("secrets %v, want %v", app.Secrets, c.secrets)
			}
			for _, s := range c.secrets {
				if app.Secrets[s] == nil {
					t.Errorf("no secret %q among %v", s, app.Secrets)
				}
			}
			if app.Fetch[0]["uri"] != "https://packages.example/holdfast/holdfast-1.2.3-linux-amd64.tar.gz" || app.Labels["DCOS_PACKAGE_FRAMEWORK_NAME"] == "" {
				t.Errorf("fetch %v, labels %v", app.Fetch, app.Labels)
			}
			if _, _, err := marathon.Parse(raw, marathon.Options{}); err != nil {
				t.Errorf("our own validator refuses the app: %v\n%s", err, raw)
			}
		})
	}
}

func TestBadOptions(t *testing.T) {
	p := open(t)
	type o = map[string]any
	for name, c := range map[string]struct {
		options o
		want    []string // all must be in the error
	}{
		"wrong type":                 {o{"service": o{"cpus": "many"}}, []string{"service", "cpus"}},
		"too small":                  {o{"service": o{"mem": 1}}, []string{"service", "mem"}},
		"too many":                   {o{"service": o{"instances": 6}}, []string{"instances"}},
		"unknown group":              {o{"servise": o{}}, []string{"servise"}},
		"unknown option":             {o{"mesos": o{"mastre": "x"}}, []string{"mesos", "mastre"}},
		"bad name":                   {o{"service": o{"name": "Holdfast"}}, []string{"service", "name"}},
		"role *":                     {o{"mesos": o{"role": "*"}}, []string{"mesos", "role"}},
		"bad duration":               {o{"mesos": o{"failover-timeout": "1 week"}}, []string{"failover-timeout"}},
		"bad store":                  {o{"state": o{"store": "/var/lib"}}, []string{"store"}},
		"store without path":         {o{"state": o{"store": "zk://a:2181"}}, []string{"store"}},
		"grade":                      {o{"failover": o{"min-grade": "none"}}, []string{"min-grade"}},
		"clock error":                {o{"failover": o{"lease-clock-error": "0.9"}}, []string{"lease-clock-error"}},
		"secret without account":     {o{"service": o{"service_account_secret": "x"}}, []string{"service_account_secret", "service_account"}},
		"secret twice":               {o{"state": o{"secret": "x", "store-secret-file": "/y"}}, []string{"state"}},
		"consul option, no consul":   {o{"consul": o{"consul-datacenter": "dc1"}}, []string{"consul-datacenter", "consul"}},
		"certificate without key":    {o{"mesos": o{"master-cert-file": "/c"}}, []string{"master-key-file"}},
		"consul's token twice":       {o{"consul": o{"consul": "http://c", "consul-token-file": "/t", "consul-token-secret": "t"}}, []string{"consul"}},
		"not an object":              {o{"service": "x"}, []string{"service"}},
		"file secret, no principal":  {o{"mesos": o{"secret-file": "/s"}}, []string{"principal"}},
		"constraints of other shape": {o{"service": o{"constraints": []any{"hostname"}}}, []string{"constraints"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := p.Render(c.options)
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("accepted: %v", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("the error does not name %q: %v", w, err)
				}
			}
		})
	}
}

// The rules of the Universe, each broken once.
func TestRules(t *testing.T) {
	good := fstest.MapFS{}
	for _, name := range []string{"package.json", "config.json", "resource.json", "marathon.json.mustache"} {
		raw, err := files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		good[name] = &fstest.MapFile{Data: []byte(strings.NewReplacer("@VERSION@", "1.0", "@ASSETS@", "http://a").Replace(string(raw)))}
	}
	nothing := strings.NewReplacer()
	if _, err := load(good, nothing); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ file, from, to, want string }{
		"name":           {"package.json", `"name": "holdfast"`, `"name": "Holdfast"`, "name"},
		"missing":        {"package.json", `"maintainer": `, `"website2": `, "maintainer"},
		"unknown":        {"package.json", `"framework": true`, `"frameworks": true`, "frameworks"},
		"type":           {"package.json", `"framework": true`, `"framework": "true"`, "framework"},
		"tag":            {"package.json", `"storage"`, `"the storage"`, "tags"},
		"release":        {"package.json", `"1.11"`, `"1.x"`, "minDcosReleaseVersion"},
		"version":        {"package.json", `"1.0"`, `"1_0"`, "version"},
		"format":         {"package.json", `"4.0"`, `"6.0"`, "packagingVersion"},
		"license":        {"package.json", `"https://www.apache.org`, `"www.apache.org`, "licenses[0]"},
		"asset":          {"resource.json", `"http://a/holdfast-1`, `"a/holdfast-1`, "holdfast-tar-gz"},
		"resource":       {"resource.json", `"images"`, `"pictures"`, "pictures"},
		"schema":         {"config.json", `"type": "object"`, `"type": "thing"`, "schema"},
		"no JSON":        {"package.json", `{`, ``, "package.json"},
		"empty template": {"marathon.json.mustache", string(good["marathon.json.mustache"].Data), " ", "empty"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := fstest.MapFS{}
			for k, v := range good {
				bad[k] = v
			}
			text := strings.Replace(string(good[c.file].Data), c.from, c.to, 1)
			if text == string(good[c.file].Data) {
				t.Fatal("the case changes nothing")
			}
			bad[c.file] = &fstest.MapFile{Data: []byte(text)}
			if _, err := load(bad, nothing); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
	if _, err := Open("1 0", "http://a"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a version with a space: %v", err)
	}
}

func TestRepository(t *testing.T) {
	p := open(t)
	for _, format := range Formats() {
		raw, err := p.Repository(format, 3)
		if err != nil {
			t.Fatal(err)
		}
		var repo struct {
			Packages []struct {
				PackagingVersion, Name, Version string
				ReleaseVersion                  int
				Config, Resource                map[string]any
				Marathon                        struct{ V2AppMustacheTemplate string }
			}
		}
		if err := json.Unmarshal(raw, &repo); err != nil || len(repo.Packages) != 1 {
			t.Fatalf("%v: %s", err, raw)
		}
		e := repo.Packages[0]
		template, err := base64.StdEncoding.DecodeString(e.Marathon.V2AppMustacheTemplate)
		if err != nil || string(template) != p.Template || e.PackagingVersion != format || e.ReleaseVersion != 3 || e.Version != "1.2.3" || e.Config["type"] != "object" || e.Resource["assets"] == nil {
			t.Errorf("%s: %v, %+v", format, err, e)
		}
	}
	if _, err := p.Repository("3.0", 0); !fault.Is(err, fault.Invalid) {
		t.Errorf("3.0: %v", err)
	}
	if got := ContentType("5.0"); got != "application/vnd.dcos.universe.repo+json;charset=utf-8;version=v5" {
		t.Error(got)
	}
}

// The validator itself must be one of draft 4, in which exclusiveMinimum is a bool: another draft would let options pass that DC/OS refuses.
func TestDraft(t *testing.T) {
	if p := open(t); p.schema.DraftVersion != 4 {
		t.Errorf("draft %d", p.schema.DraftVersion)
	}
	_ = jsonschema.Draft4
}
