package marathon

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

func parse(t *testing.T, text string) *App {
	t.Helper()
	a, _, err := Parse([]byte(text), Options{Role: "holdfast"})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return a
}

// TestPrintedAsMarathonPrints compares with what a Marathon answers to a minimal app, key by key in its order.
func TestPrintedAsMarathonPrints(t *testing.T) {
	a, _, err := Parse([]byte(`{"id":"/a","cmd":"sleep 1"}`), Options{})
	if err != nil {
		t.Fatal(err)
	}
	a.AssignServicePorts(nil, func(int) bool { return false })
	got := string(definition.Print(a.JSON(), definition.Live{Instances: 1, Version: "V", Extra: []byte(`"tasksStaged":0`)}))
	want := `{"id":"/a","backoffFactor":1.15,"backoffSeconds":1,"cmd":"sleep 1","cpus":1,"disk":0,"executor":"","gpus":0,"instances":1,"labels":{},"maxLaunchDelaySeconds":300,"mem":128,` +
		`"networks":[{"mode":"host"}],"portDefinitions":[{"port":10000,"name":"default","protocol":"tcp"}],"requirePorts":false,` +
		`"upgradeStrategy":{"maximumOverCapacity":1,"minimumHealthCapacity":1},"version":"V","killSelection":"YOUNGEST_FIRST",` +
		`"unreachableStrategy":{"inactiveAfterSeconds":0,"expungeAfterSeconds":0},"role":"*","tasksStaged":0}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestPrintFindsTheRightInstances: the number is replaced at the top, not in what users write.
func TestPrintFindsTheRightInstances(t *testing.T) {
	a := parse(t, `{"id":"/a","cmd":"echo '\"instances\":5,\"killSelection\":'","env":{"instances":"x","killSelection":"y\""},"labels":{"instances":"z"},"instances":2}`)
	out := definition.Print(a.JSON(), definition.Live{Instances: 7, Version: "V", LastScalingAt: "S", LastConfigChangeAt: "C"})
	var m struct {
		Cmd         string
		Instances   int
		Version     string
		VersionInfo map[string]string
		Env, Labels map[string]string
	}
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if m.Instances != 7 || m.Version != "V" || m.VersionInfo["lastScalingAt"] != "S" || m.Env["instances"] != "x" || m.Env["killSelection"] != "y\"" || m.Labels["instances"] != "z" || !strings.Contains(m.Cmd, `"instances":5`) {
		t.Errorf("%+v in %s", m, out)
	}
}

func TestMigration(t *testing.T) {
	for name, c := range map[string]struct{ in, path, want string }{
		"ports":         {`{"id":"a","cmd":"xx","ports":[80,0]}`, "portDefinitions", `[{"name":"default","port":80,"protocol":"tcp"},{"port":0,"protocol":"tcp"}]`},
		"no ports":      {`{"id":"a","cmd":"xx","ports":[]}`, "portDefinitions", `[]`},
		"uris":          {`{"id":"a","cmd":"xx","uris":["http://x/a.tgz?b=c","http://x/a"]}`, "fetch", `[{"cache":false,"executable":false,"extract":true,"uri":"http://x/a.tgz?b=c"},{"cache":false,"executable":false,"extract":false,"uri":"http://x/a"}]`},
		"bridge":        {`{"id":"a","container":{"docker":{"image":"i","network":"BRIDGE"}}}`, "networks", `[{"mode":"container/bridge"}]`},
		"host":          {`{"id":"a","container":{"docker":{"image":"i","network":"HOST"}}}`, "networks", `[{"mode":"host"}]`},
		"user":          {`{"id":"a","container":{"docker":{"image":"i","network":"USER"}},"ipAddress":{"networkName":"n","labels":{"a":"b"}}}`, "networks", `[{"labels":{"a":"b"},"mode":"container","name":"n"}]`},
		"mappings":      {`{"id":"a","container":{"docker":{"image":"i","network":"BRIDGE","portMappings":[{"containerPort":80}]}}}`, "container.portMappings", `[{"containerPort":80,"hostPort":0,"labels":{},"protocol":"tcp","servicePort":0}]`},
		"discovery":     {`{"id":"a","cmd":"xx","ipAddress":{"networkName":"n","discovery":{"ports":[{"number":80,"name":"http","protocol":"tcp"}]}}}`, "container.portMappings", `[{"containerPort":80,"labels":{},"name":"http","protocol":"tcp","servicePort":0}]`},
		"no container":  {`{"id":"a","cmd":"xx","networks":[{"mode":"CONTAINER/bridge"}]}`, "container", `{"portMappings":[{"containerPort":0,"hostPort":0,"labels":{},"name":"default","protocol":"tcp","servicePort":0}],"type":"MESOS","volumes":[]}`},
		"case and dots": {`{"id":"a/b/../c","cmd":"xx","killSelection":"oldest_first"}`, "killSelection", `"OLDEST_FIRST"`},
		"null":          {`{"id":"a","cmd":"xx","ports":null,"dependencies":null,"fetch":null,"container":null}`, "portDefinitions", `[{"name":"default","port":0,"protocol":"tcp"}]`},
		"whole float":   {`{"id":"a","cmd":"xx","instances":2.000000}`, "instances", `2`},
		"volumes":       {`{"id":"a","cmd":"xx","container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","external":{"name":"v","provider":"dvdi","options":{"dvdi/driver":"pool"}}}]}}`, "upgradeStrategy", `{"maximumOverCapacity":0,"minimumHealthCapacity":0.5}`},
	} {
		t.Run(name, func(t *testing.T) {
			var v any
			if err := json.Unmarshal(parse(t, c.in).JSON(), &v); err != nil {
				t.Fatal(err)
			}
			for _, k := range strings.Split(c.path, ".") {
				v = v.(map[string]any)[k]
			}
			if got := string(document.Marshal(v)); got != c.want {
				t.Errorf("%s is %s, want %s", c.path, got, c.want)
			}
		})
	}
}

func TestUpdate(t *testing.T) {
	base := `{"id":"/a","cmd":"sleep 1","env":{"A":"1"},"resourceLimits":{"mem":256},"labels":{"l":"1"},"instances":2}`
	for name, c := range map[string]struct{ update, path, want string }{
		"replaces whole fields":     {`{"env":{"B":"2"}}`, "env", `{"B":"2"}`},
		"keeps the others":          {`{"cpus":2}`, "labels", `{"l":"1"}`},
		"null keeps":                {`{"env":null}`, "env", `{"A":"1"}`},
		"limits are reset":          {`{"cpus":2}`, "resourceLimits", `null`},
		"args take over from cmd":   {`{"args":["a"]}`, "cmd", `null`},
		"the id stays":              {`{"id":"/b"}`, "id", `"/a"`},
		"other network, no ports":   {`{"networks":[{"mode":"container/bridge"}]}`, "portDefinitions", `null`},
		"first volume, other rules": {`{"container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","external":{"name":"v","provider":"dvdi","options":{"dvdi/driver":"pool"}}}]}}`, "upgradeStrategy", `{"maximumOverCapacity":0,"minimumHealthCapacity":0.5}`},
	} {
		t.Run(name, func(t *testing.T) {
			stored, err := Stored(parse(t, base).JSON())
			if err != nil {
				t.Fatal(err)
			}
			v, err := document.Parse([]byte(c.update))
			if err != nil {
				t.Fatal(err)
			}
			u, _, err := ReadUpdate(v)
			if err != nil {
				t.Fatal(err)
			}
			a, _, err := u.Apply(stored, Options{Role: "holdfast"})
			if err != nil {
				t.Fatal(err, fault.DetailsOf(err))
			}
			var m map[string]any
			if err := json.Unmarshal(a.JSON(), &m); err != nil {
				t.Fatal(err)
			}
			if got := string(document.Marshal(m[c.path])); got != c.want {
				t.Errorf("%s is %s, want %s", c.path, got, c.want)
			}
		})
	}
}

func TestServicePorts(t *testing.T) {
	a := parse(t, `{"id":"a","cmd":"xx","ports":[0,10001,0]}`)
	if !a.AssignServicePorts(nil, func(p int) bool { return p == 10000 }) || !reflect.DeepEqual(a.ServicePorts(), []int{10002, 10001, 10003}) {
		t.Errorf("ports %v", a.ServicePorts())
	}
	b := parse(t, `{"id":"a","cmd":"xx","ports":[0,0]}`)
	if !b.AssignServicePorts(a, func(int) bool { return false }) || !reflect.DeepEqual(b.ServicePorts(), []int{10002, 10001}) {
		t.Errorf("an update has the ports %v", b.ServicePorts())
	}
	all := func(int) bool { return true }
	if parse(t, `{"id":"a","cmd":"xx"}`).AssignServicePorts(nil, all) {
		t.Error("a port was found where there is none")
	}
	if c := parse(t, `{"id":"a","cmd":"xx","ports":[0],"requirePorts":true}`); !c.AssignServicePorts(nil, all) || len(c.ServicePorts()) != 0 {
		t.Error("host ports are taken for service ports")
	}
}

func TestSpec(t *testing.T) {
	a := parse(t, `{"id":"/db","args":["run","-x"],"instances":3,"user":"pg","env":{"A":"b"},"cpus":0.5,"backoffSeconds":2,"taskKillGracePeriodSeconds":9,"unprotected":true,
	 "constraints":[["hostname","unique"],["rack","LIKE","a.*"]],"healthChecks":[{"protocol":"TCP"}],"ports":[0,0],"fetch":[{"uri":"http://x/y.tgz"}],
	 "container":{"type":"MESOS","docker":{"image":"pg:15"},"volumes":[
	  {"containerPath":"data","mode":"RW","external":{"name":"pg-{ordinal}","provider":"dvdi","size":5,"options":{"dvdi/driver":"pool","dvdi/fs":" xfs ","other/x":"y"}}},
	  {"containerPath":"/shared","mode":"RW","external":{"name":"all","provider":"dvdi","shared":true,"options":{"dvdi/driver":"pool","dvdi/size":"512M"}}},
	  {"containerPath":"/etc/x","hostPath":"/etc/y","mode":"RO"}]}}`)
	if err := a.Unsupported(); err != nil {
		t.Fatal(err, fault.DetailsOf(err))
	}
	s, err := a.Spec()
	if err != nil {
		t.Fatal(err)
	}
	zero := 0
	want := []state.Mount{
		{Kind: state.MountExternal, ContainerPath: "data", Driver: "pool", Pattern: "pg-{ordinal}", Size: 5 * volume.GiB, Options: map[string]string{"fs": "xfs"}},
		{Kind: state.MountExternal, ContainerPath: "/shared", Driver: "pool", Pattern: "all", Size: 512 * volume.MiB, Options: map[string]string{}, Shared: true},
		{Kind: state.MountHost, ContainerPath: "/etc/x", HostPath: "/etc/y", ReadOnly: true},
	}
	if !reflect.DeepEqual(s.Volumes, want) {
		t.Errorf("volumes %+v", s.Volumes)
	}
	if !reflect.DeepEqual(s.Constraints, []state.Constraint{{Field: "hostname", Operator: "UNIQUE"}, {Field: "rack", Operator: "LIKE", Value: "a.*", HasValue: true}}) {
		t.Errorf("constraints %+v", s.Constraints)
	}
	if h := s.HealthChecks[0]; h.Protocol != "TCP" || !reflect.DeepEqual(h.PortIndex, &zero) || h.Grace != 5*time.Minute || h.MaxFailures != 3 {
		t.Errorf("health check %+v", h)
	}
	if s.KillGrace != 9*time.Second || s.Backoff.Base != 2*time.Second || s.User != "pg" || !s.Unprotected || s.Container.Image != "pg:15" || len(s.Ports) != 2 || !s.Fetch[0].Extract || s.MemMB != 128 {
		t.Errorf("spec %+v", s)
	}
}

func TestBridgePorts(t *testing.T) {
	a := parse(t, `{"id":"a","container":{"docker":{"image":"i"},"portMappings":[{"containerPort":80,"hostPort":8080},{"containerPort":81}]},"networks":[{"mode":"container/bridge"}],"healthChecks":[{"portIndex":1}]}`)
	s, err := a.Spec()
	if err != nil {
		t.Fatal(err)
	}
	if !s.RequirePort || len(s.Ports) != 2 || s.Ports[0].Want != 8080 || s.Ports[0].ContainerPort != 80 || *s.HealthChecks[0].PortIndex != 1 {
		t.Errorf("%+v", s)
	}
	b := parse(t, `{"id":"a","container":{"type":"MESOS","docker":{"image":"i"},"portMappings":[{"containerPort":80}]},"networks":[{"name":"n"}],"healthChecks":[{}]}`)
	if s, err = b.Spec(); err != nil || len(s.Ports) != 0 || s.HealthChecks[0].Port != 80 || s.HealthChecks[0].PortIndex != nil || s.Container.NetName != "n" {
		t.Errorf("%+v %v", s, err)
	}
}

func TestVolumeNamesOfAllInstances(t *testing.T) {
	app := func(name, instances string) error {
		_, _, err := Parse([]byte(`{"id":"a","cmd":"xx","instances":`+instances+`,"container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","external":{"name":"`+name+`","provider":"dvdi","options":{"dvdi/driver":"pool"}}}]}}`), Options{})
		return err
	}
	long := strings.Repeat("v", volume.MaxName-3)
	for _, c := range []struct {
		name, instances string
		good            bool
	}{{"db", "5", true}, {long, "1", true}, {long, "100", true}, {long, "101", false}, {long + "{ordinal}", "1000", true}, {long + "{ordinal}", "1001", false}, {"{ordinal}x", "2", true},
		{"-x", "1", false}, {"a/b", "1", false}, {"..", "1", false}, {"a b", "1", false}, {strings.Repeat("x", 300), "1", false}, {"é", "1", false}} {
		err := app(c.name, c.instances)
		if (err == nil) != c.good {
			t.Errorf("%.20q… of %d bytes, %s instances: %v", c.name, len(c.name), c.instances, err)
		}
		if err != nil && fault.DetailsOf(err)[0].Path != "/container/volumes(0)/external/name" {
			t.Errorf("path %v", fault.DetailsOf(err))
		}
	}
}

func TestWarnings(t *testing.T) {
	for in, want := range map[string]string{
		`{"id":"a","cmd":"xx","instence":1}`:                             `unknown field /instence is ignored; did you mean "instances"?`,
		`{"id":"a","cmd":"xx","container":{"type":"MESOS","volume":[]}}`: `unknown field /container/volume is ignored; did you mean "volumes"?`,
		`{"id":"a","cmd":"xx","healthChecks":[{"protocl":"TCP"}]}`:       `unknown field /healthChecks(0)/protocl is ignored; did you mean "protocol"?`,
		`{"id":"a","cmd":"xx","Cmd":"yy"}`:                               `unknown field /Cmd is ignored; did you mean "cmd"?`,
		`{"id":"a","cmd":"xx","zzzzzzzz":null}`:                          `unknown field /zzzzzzzz is ignored`,
		`{"id":"a","cmd":"xx","container":{"type":"MESOS","volumes":[{"containerPath":"/d","mode":"RW","external":{"name":"v","provider":"dvdi","options":{"dvdi/driver":"pool"}}}]}}`: `without an image the absolute path /d must exist`,
	} {
		_, warnings, err := Parse([]byte(in), Options{})
		if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], want) {
			t.Errorf("%s: %q %v", in, warnings, err)
		}
	}
	if _, warnings, _ := Parse([]byte(`{"id":"a","cmd":"xx","tasksRunning":1,"deployments":[],"tasks":[],"versionInfo":{}}`), Options{}); len(warnings) > 0 {
		t.Errorf("an answer of the API comes back with warnings: %q", warnings)
	}
}

func TestRules(t *testing.T) {
	resident := `"container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","persistent":{"size":1}}]}`
	external := `"container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","external":{"name":"v","provider":"dvdi","options":{"dvdi/driver":"pool"}}}]}`
	for _, c := range []struct{ in, path, text string }{
		{`{"id":"a","cmd":"xx","residency":{}}`, "", ""},
		{`{"id":"a","cmd":"xx","residency":{},"unreachableStrategy":{}}`, "/", "unreachableStrategy must be disabled for resident tasks"},
		{`{"id":"a","cmd":"xx",` + resident + `}`, "", ""},
		{`{"id":"a","cmd":"xx",` + resident + `,"upgradeStrategy":{"maximumOverCapacity":1,"minimumHealthCapacity":1}}`, "/upgradeStrategy/maximumOverCapacity", "got 1.0, expected 0.0"},
		{`{"id":"a","cmd":"xx",` + external + `,"upgradeStrategy":{"maximumOverCapacity":0.5,"minimumHealthCapacity":1}}`, "/upgradeStrategy/maximumOverCapacity", "got 0.5, expected 0.0"},
		{`{"id":"a","cmd":"xx",` + external + `,"instances":3}`, "", ""},
		{`{"id":"a","cmd":"xx","container":{"volumes":[]}}`, "/container/docker", "not defined"},
		{`{"id":"a","container":{"type":"MESOS"}}`, "/", "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'."},
		{`{"id":"a","cmd":"xx","instances":"2"}`, "/instances", "error.expected.jsnumber"},
		{`{"id":"a","cmd":"xx","instances":2.5}`, "/instances", "error.expected.int"},
		{`{"id":"a","cmd":"xx","instances":-1}`, "/instances", "error.min"},
		{`{"id":"a","cmd":""}`, "/cmd", "error.minLength"},
		{`{"id":"a","cmd":"x"}`, "/cmd", "must not be an empty string"},
		{`{"id":"a","cmd":"xx","labels":{"MARATHON_SINGLE_INSTANCE_APP":"true"},"instances":2,"upgradeStrategy":{"maximumOverCapacity":0,"minimumHealthCapacity":0}}`, "/", "Single instance app may only have one instance"},
		{`{"id":"a","cmd":"xx","labels":{"MARATHON_SINGLE_INSTANCE_APP":"true"}}`, "/upgradeStrategy/maximumOverCapacity", "got 1.0, expected 0.0"},
		{`{"id":"a","cmd":"xx","networks":[{"mode":"host","name":"x"}]}`, "/networks", "Host networks may not have names or labels"},
		{`{"id":"a","cmd":"xx","networks":[{"mode":"container/bridge"},{"mode":"host"}]}`, "/networks", "May specify a single host network, single bridge network, or else 1-to-n container networks"},
		{`{"id":"a","cmd":"xx","portDefinitions":[{"port":1,"name":"x"},{"port":1,"name":"x"}]}`, "/portDefinitions", "Port names must be unique."},
		{`{"id":"a","cmd":"xx","healthChecks":[{"portIndex":1}]}`, "/healthChecks(0)", "Health check port indices must address an element of the ports array or container port mappings."},
		{`{"id":"a","cmd":"xx","readinessChecks":[{},{}]}`, "/readinessChecks/size", "got 2, expected 1 or less"},
		{`{"id":"a","cmd":"xx","readinessChecks":[{"portName":"no"}]}`, "/readinessChecks(0)/portName", "No port definition reference for portName no"},
		{`{"id":"a","cmd":"xx","unreachableStrategy":{"inactiveAfterSeconds":2,"expungeAfterSeconds":1}}`, "/unreachableStrategy", "inactiveAfterSeconds (2) must be less or equal to expungeAfterSeconds, which is 1"},
		{`{"id":"a","cmd":"xx","resourceLimits":{"cpus":"lots"}}`, "/resourceLimits/cpus", `'lots' is an invalid resource limit. It must be 'unlimited' or a number`},
		{`{"id":"a","cmd":"xx","fetch":[{"uri":"http://x/a b"}]}`, "/fetch(0)/uri", "URI has invalid syntax."},
		{`{"id":"a","cmd":"xx","uris":["http://x/a b"]}`, "/uris(0)", "URI has invalid syntax."},
		{`{"id":"a","cmd":"xx","networks":[{"mode":"container"}]}`, "/networks", "Network name must be specified when container network is selected."},
		{`{"id":"a","cmd":"xx","networks":[{"name":"x"},{"name":"x"}]}`, "/networks", "Duplicate networks are not allowed"},
		{`{"id":"a","cmd":"xx","container":{"docker":{"image":"i"}},"networks":[{"name":"x"},{"name":"y"}]}`, "/", "may only specify a single container network when using the Docker container engine"},
		{`{"id":"a","cmd":"xx","labels":{"DCOS_MIGRATION_API_VERSION":"v2","DCOS_PACKAGE_FRAMEWORK_NAME":"x","DCOS_MIGRATION_API_PATH":"/"}}`, "/", "DCOS_PACKAGE_FRAMEWORK_NAME and DCOS_MIGRATION_API_PATH must be defined when using DCOS_MIGRATION_API_VERSION"},
		{`{"id":"a","cmd":"xx","healthChecks":[{"protocol":"MESOS_TCP"},{"protocol":"MESOS_HTTP"}]}`, "/", "AppDefinition can contain at most one Mesos health check"},
		{`{"id":"a","cmd":"xx","container":{"docker":{"image":"i","network":"BRIDGE","portMappings":[]},"portMappings":[]}}`, "/", "cannot specify both portMappings and docker.portMappings"},
		{`{"id":"a","cmd":"xx","container":{"docker":{"image":"i","network":"BRIDGE","portMappings":[{"name":"x"},{"name":"x"}]}}}`, "/container/docker/portMappings", "Port names must be unique."},
		{`{"id":"a","cmd":"xx","container":{"type":"MESOS","volumes":[{"containerPath":"x","mode":"RW","persistent":{"size":1,"type":"mount","constraints":[["path","like","x"]]}}]}}`, "/container/volumes(0)/persistent/constraints(0)", "unknown constraint operator like"},
		{`{"id":"a","cmd":"xx","constraints":[["a","LIKE"]]}`, "/constraints(0)", "LIKE and UNLIKE require a non-empty, regular expression value"},
		{`{"id":"a","cmd":"xx","constraints":[["a","IS"],["b","LIKE",""],["c","MAX_PER","0"],["d","GROUP_BY","-1"]]}`, "", ""},
		{`{"id":"a","cmd":"xx","networks":[{"mode":"container/bridge"}],"portDefinitions":[{"port":0},{"port":1}]}`, "", ""},
		{`{"id":"a","cmd":"xx","dependencies":["/a"]}`, "/", "Dependency graph has cyclic dependencies."},
	} {
		_, _, err := Parse([]byte(c.in), Options{Role: "holdfast"})
		if c.path == "" {
			if err != nil {
				t.Errorf("%s: refused: %v %v", c.in, err, fault.DetailsOf(err))
			}
			continue
		}
		if !hasDetail(err, c.path, c.text) {
			t.Errorf("%s: no %q at %s; got %v %v", c.in, c.text, c.path, err, fault.DetailsOf(err))
		}
	}
}

// Ports of the host on a container network: only their number counts, as in Marathon.
func TestPortsOnContainerNetwork(t *testing.T) {
	for in, want := range map[string]int{
		`{"id":"a","container":{"docker":{"image":"i","network":"BRIDGE"}},"ports":[1,2,3]}`:                                                                                       3,
		`{"id":"a","container":{"docker":{"image":"i","network":"BRIDGE"}},"portDefinitions":[]}`:                                                                                  1,
		`{"id":"a","container":{"docker":{"image":"i"},"portMappings":[{"containerPort":80}]},"networks":[{"mode":"container/bridge"}],"portDefinitions":[{"port":1},{"port":2}]}`: 2,
		`{"id":"a","container":{"docker":{"image":"i"},"portMappings":[{"containerPort":80}]},"networks":[{"mode":"container/bridge"}],"portDefinitions":[]}`:                      1,
	} {
		a := parse(t, in)
		if n := len(a.Container.PortMappings); n != want || a.PortDefinitions != nil {
			t.Errorf("%s: %d mappings, want %d; definitions %v", in, n, want, a.PortDefinitions)
		}
	}
}
