package pod

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

func read(text string) (*Pod, error) {
	v, err := document.Parse([]byte(text))
	if err != nil {
		return nil, err
	}
	p, _, err := Read(v, marathon.Options{DefaultNetwork: "dcos"})
	return p, err
}

const whole = `{"id":"/a/pod","labels":{"l":"1"},"user":"nobody","environment":{"E":"pod","F":"pod"},
"containers":[
 {"name":"db","exec":{"command":{"shell":"run"}},"resources":{"cpus":0.1,"mem":32},"environment":{"E":"own"},
  "endpoints":[{"name":"sql","hostPort":0,"protocol":["tcp","udp"]},{"name":"mon-x","hostPort":9000}],
  "healthCheck":{"tcp":{"endpoint":"mon-x"},"intervalSeconds":5,"timeoutSeconds":2},
  "volumeMounts":[{"name":"data","mountPath":"d"},{"name":"shared","mountPath":"s"}],
  "artifacts":[{"uri":"http://x/y"}],"lifecycle":{"killGracePeriodSeconds":2.5}},
 {"name":"side","user":"root","image":{"kind":"DOCKER","id":"side:1","forcePull":true},"resources":{"cpus":0.2,"mem":64,"disk":5},
  "exec":{"command":{"argv":["-a","-b"]}},
  "volumeMounts":[{"name":"data","mountPath":"/d","readOnly":true},{"name":"logs","mountPath":"l"},{"name":"shared","mountPath":"s"}]}],
"volumes":[{"name":"shared"},{"name":"logs","host":"/var/log"},{"name":"data","external":{"name":"pg","provider":"dvdi","size":5,"options":{"dvdi/driver":"pool"}}}],
"networks":[{"mode":"host"}],"scaling":{"kind":"fixed","instances":3},
"scheduling":{"backoff":{"backoff":2,"backoffFactor":1.5,"maxLaunchDelay":60},"upgrade":{"minimumHealthCapacity":0.5},"killSelection":"OLDEST_FIRST",
 "placement":{"constraints":[{"fieldName":"hostname","operator":"UNIQUE"},{"fieldName":"rack","operator":"LIKE","value":"r.*"}],"acceptedResourceRoles":["*"]},
 "unreachableStrategy":{"inactiveAfterSeconds":5,"expungeAfterSeconds":9}}}`

func TestWhole(t *testing.T) {
	p, err := read(whole)
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Spec()
	if err != nil {
		t.Fatal(err)
	}
	if s.CPUs != .4 || s.MemMB != 128 || s.DiskMB != 15 || !s.RequirePort || len(s.Ports) != 2 || s.Ports[1].Want != 9000 || s.Ports[0].Protocol != "udp,tcp" {
		t.Errorf("resources and ports: %+v", s)
	}
	if len(s.Volumes) != 2 || s.Volumes[1].Kind != state.MountExternal || s.Volumes[1].ContainerPath != "data" || s.Volumes[1].ReadOnly || !s.Exclusive() {
		t.Errorf("volumes: %+v", s.Volumes)
	}
	db, side := s.Containers[0], s.Containers[1]
	if db.Env["E"] != "own" || db.Env["F"] != "pod" || db.User != "nobody" || side.User != "root" || side.Args[1] != "-b" || side.Image != "side:1" || !side.ForcePull {
		t.Errorf("containers: %+v", s.Containers)
	}
	if db.Health == nil || db.Health.Protocol != "MESOS_TCP" || *db.Health.PortIndex != 1 || db.KillGrace.Seconds() != 2.5 || !db.Fetch[0].Extract || !db.Mounts[1].Shared || db.Mounts[0].Shared || !side.Mounts[0].ReadOnly {
		t.Errorf("database: %+v", db)
	}
	if s.Upgrade.MinHealth != .5 || s.Upgrade.MaxOver != 0 || s.Backoff.Base.Seconds() != 2 || len(s.Constraints) != 2 || s.Constraints[1].Value != "r.*" || s.Unreachable.Expunge.Seconds() != 9 || s.AcceptedRoles[0] != "*" {
		t.Errorf("scheduling: %+v", s)
	}
	// What is printed says the same again.
	out, err := Print(p.JSON(), "2026-01-01T00:00:00.000Z", 7)
	if err != nil || !strings.Contains(string(out), `"version":"2026-01-01T00:00:00.000Z"`) || !strings.Contains(string(out), `"scaling":{"kind":"fixed","instances":7}`) {
		t.Fatalf("printed %s: %v", out, err)
	}
	again, err := read(string(out))
	if err != nil {
		t.Fatal(err)
	}
	if !again.SameBut(p.JSON()) {
		t.Errorf("read again:\n%s\n%s", again.JSON(), p.JSON())
	}
	var in map[string]any
	if err := json.Unmarshal(out, &in); err != nil {
		t.Fatal(err)
	}
}

func TestContainerNetwork(t *testing.T) {
	p, err := read(`{"id":"/p","networks":[{"mode":"container","name":"n"}],"containers":[{"name":"a","image":{"kind":"DOCKER","id":"x"},"resources":{"cpus":1,"mem":1},
"endpoints":[{"name":"in","containerPort":80},{"name":"out","containerPort":81,"hostPort":0}],"healthCheck":{"http":{"endpoint":"in","path":"/p"}}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Spec()
	if err != nil {
		t.Fatal(err)
	}
	c := s.Containers[0]
	if len(s.Ports) != 1 || s.Ports[0].ContainerPort != 81 || s.Container.NetName != "n" || len(c.Ports) != 1 || c.Health.Port != 80 || c.Health.PortIndex != nil || c.Env["ENDPOINT_IN"] != "80" {
		t.Errorf("%+v", s)
	}
}

// What is printed of the smallest pod can be sent back.
func TestSentBack(t *testing.T) {
	p, err := read(`{"id":"/p","containers":[{"name":"a","exec":{"command":{"shell":"x"}},"resources":{"cpus":1,"mem":1}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	again, err := read(string(p.JSON()))
	if err != nil || !again.SameBut(p.JSON()) {
		t.Errorf("%s: %v", p.JSON(), err)
	}
}

func TestRefused(t *testing.T) {
	const c = `{"name":"a","exec":{"command":{"shell":"x"}},"resources":{"cpus":1,"mem":1}`
	for text, want := range map[string]string{
		`{}`:                                    `/id: 'id' is undefined on object: {}`,
		`{"id":"/p","containers":[]}`:           `/containers: must not be empty`,
		`{"id":"/P","containers":[` + c + `}]}`: `/id: `,
		`{"id":"/p","containers":[` + c + `},` + c + `}]}`:                                                                                     `/containers: container names are unique`,
		`{"id":"/p","containers":[{"name":"a","resources":{"cpus":1,"mem":1}}]}`:                                                               `/containers(0): a container needs exec, image, or both`,
		`{"id":"/p","containers":[` + c + `,"volumeMounts":[{"name":"v","mountPath":"v"}]}]}`:                                                  `/containers(0)/volumeMounts(0)/name: Referenced Volume in VolumeMount should exist`,
		`{"id":"/p","volumes":[{"name":"v"}],"containers":[` + c + `}]}`:                                                                       `/volumes(0): volume must be referenced by at least one container`,
		`{"id":"/p","volumes":[{"name":"v","persistent":{"size":1}}],"containers":[` + c + `,"volumeMounts":[{"name":"v","mountPath":"v"}]}]}`: `/volumes(0)/persistent: local persistent volumes in pods are not supported`,
		`{"id":"/p","volumes":[{"name":"s"},{"name":"v","external":{"name":"x","provider":"dvdi"}}],"containers":[` + c + `,"volumeMounts":[{"name":"v","mountPath":"v"},{"name":"s","mountPath":"s"}]}]}`: `/volumes(1)/external`,
		`{"id":"/p","secrets":{"a":{"source":"b"}},"containers":[` + c + `}]}`:                                                        `/secrets: secrets are not supported`,
		`{"id":"/p","environment":{"A":{"secret":"b"}},"containers":[` + c + `}]}`:                                                    `/environment/A: secrets are`,
		`{"id":"/p","containers":[` + c + `,"endpoints":[{"name":"e","containerPort":1}]}]}`:                                          `/containers(0)/endpoints(0)/containerPort: is not allowed when using host-mode networking`,
		`{"id":"/p","networks":[{"mode":"container","name":"n"}],"containers":[` + c + `,"endpoints":[{"name":"e"}]}]}`:               `/containers(0)/endpoints(0)/containerPort: is required when using container-mode networking`,
		`{"id":"/p","containers":[` + c + `,"healthCheck":{"http":{"endpoint":"z"}}}]}`:                                               `/containers(0)/healthCheck/http/endpoint: contained in the container endpoints`,
		`{"id":"/p","containers":[` + c + `,"healthCheck":{}}]}`:                                                                      `/containers(0)/healthCheck: Only one of http, tcp, or command may be specified`,
		`{"id":"/p","scheduling":{"placement":{"constraints":[{"fieldName":"hostname","operator":"NO"}]}},"containers":[` + c + `}]}`: `/scheduling/placement/constraints`,
		`{"id":"/p","scheduling":{"backoff":{"backoff":-1}},"containers":[` + c + `}]}`:                                               `/scheduling/backoff/backoff: error.min`,
		`{"id":"/p","scheduling":{"upgrade":{"maximumOverCapacity":2}},"containers":[` + c + `}]}`:                                    `/scheduling/upgrade/maximumOverCapacity: error.max`,
		`{"id":"/p","scaling":{"instances":-1},"containers":[` + c + `}]}`:                                                            `/scaling/instances: error.min`,
		`{"id":"/p","executorResources":{"cpus":0,"mem":1},"containers":[` + c + `}]}`:                                                `/executorResources: Mesos's default executor`,
		`{"id":"/p","networks":[{"mode":"container","name":"a"},{"mode":"container","name":"b"}],"containers":[` + c + `}]}`:          `/networks: several`,
		`{"id":"/p","containers":[` + c + `,"tty":true}]}`:                                                                            `/containers(0)/tty: terminals`,
		`{"id":"/p","containers":[` + c + `,"lifecycle":{"killGracePeriodSeconds":0}}]}`:                                              `/containers(0)/lifecycle/killGracePeriodSeconds`,
		`{"id":"/p","containers":3}`: `/containers: error.expected.jsarray`,
		`[]`:                         `/: error.expected.jsobject`,
	} {
		_, err := read(text)
		var e *fault.Error
		if !errors.As(err, &e) || e.Class != fault.Invalid {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var all []string
		for _, d := range e.Details {
			for _, x := range d.Errors {
				all = append(all, d.Path+": "+x)
			}
		}
		if got := strings.Join(all, "; "); !strings.Contains(got, want) {
			t.Errorf("%s:\n got %s\nwant %s", text, got, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(whole)
	f.Fuzz(func(t *testing.T, text string) {
		var syntax *document.SyntaxError
		p, err := read(text)
		if errors.As(err, &syntax) {
			return
		}
		if err != nil {
			if fault.Is(err, fault.Internal) {
				t.Fatal(err)
			}
			return
		}
		if _, err := p.Spec(); err != nil && fault.Is(err, fault.Internal) {
			t.Fatal(err)
		}
		if again, err := read(string(p.JSON())); err != nil || !again.SameBut(p.JSON()) {
			t.Fatalf("read again: %v\n%s", err, p.JSON())
		}
	})
}
