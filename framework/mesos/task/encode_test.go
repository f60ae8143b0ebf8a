package task

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/holdfast-io/holdfast/framework/embedded/wire"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/place"
	"github.com/holdfast-io/holdfast/scheduler/reserve"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew; read the difference in review")

// offered makes a resource as it comes out of an offer.
func offered(t *testing.T, name string, scalar float64, reservations ...mesos.Resource_ReservationInfo) state.Resource {
	t.Helper()
	r := &mesos.Resource{Name: name, Type: mesos.SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: scalar},
		AllocationInfo: &mesos.Resource_AllocationInfo{Role: ptr("holdfast")}, Reservations: reservations}
	raw, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	out := state.Resource{Name: name, Scalar: scalar, AllocationRole: "holdfast", Raw: raw}
	for _, v := range reservations {
		one := state.Reservation{Role: v.GetRole(), Principal: v.GetPrincipal(), Dynamic: v.GetType() == mesos.Resource_ReservationInfo_DYNAMIC}
		if v.Labels != nil {
			one.Labels = map[string]string{}
			for _, l := range v.Labels.Labels {
				one.Labels[l.Key] = l.GetValue()
			}
		}
		out.Reservations = append(out.Reservations, one)
	}
	return out
}

func take(r state.Resource, scalar float64) state.Resource {
	r.Scalar = scalar
	return r
}

func launchOf(t *testing.T, spec state.Spec) scheduler.Launch {
	t.Helper()
	ports := state.Resource{Name: "ports", Ranges: []state.Range{{Begin: 31005, End: 31006}}, AllocationRole: "holdfast"}
	l := scheduler.Launch{
		Instance: &state.Instance{ID: "prod_db.2", App: "/prod/db", Ordinal: 2, Incarnation: 17},
		Run: &state.Run{Task: "prod_db.2.17-3f9c2a", Version: "2026-11-21T05:00:00.000Z", Agent: "S0", Hostname: "agent0.local",
			Ports: []int{31005, 31006}[:len(spec.Ports)]},
		Def:       &state.Def{App: "/prod/db", Version: "2026-11-21T05:00:00.000Z", Spec: spec},
		Resources: []state.Resource{take(offered(t, "cpus", 4), 0.5), take(offered(t, "mem", 1024), 128)},
	}
	if len(spec.Ports) > 0 {
		l.Resources = append(l.Resources, ports)
	}
	for _, m := range spec.Volumes {
		if m.Kind == state.MountExternal {
			opts := volume.Grant{VolumeUID: "0190-uid", Epoch: 7, Nonce: "n0nce", Task: string(l.Run.Task), MustExist: true}.Encode(m.Options)
			l.Volumes = append(l.Volumes, scheduler.TaskVolume{Ref: volume.Ref{Driver: m.Driver, Name: volume.NameFor(m.Pattern, 2, m.Shared)},
				ContainerPath: m.ContainerPath, ReadOnly: m.ReadOnly, Options: opts})
		}
	}
	return l
}

func cases(t *testing.T) map[string]scheduler.Call {
	static := mesos.Resource_ReservationInfo{Type: mesos.Resource_ReservationInfo_STATIC.Enum(), Role: ptr("holdfast")}
	data := state.Mount{Kind: state.MountExternal, ContainerPath: "data", Driver: "pool", Pattern: "pgdata", Options: map[string]string{"size": "5", "note": "a=b,c"}}
	index := 1
	stateful := launchOf(t, state.Spec{Cmd: "run $PORT0", CPUs: .5, MemMB: 128, User: "postgres", KillGrace: 20 * time.Second,
		Env: map[string]string{"PGDATA": "data", "HOST": "mine"}, Labels: map[string]string{"team": "storage", "VIP-0": "x"},
		Fetch: []state.Fetch{{URI: "http://x/y.tgz", Extract: true, DestPath: "z"}},
		Ports: []state.Port{{Want: 10000, Name: "sql", Protocol: "tcp", Labels: map[string]string{"VIP_0": "db:5432"}}, {Protocol: "udp,tcp"}},
		HealthChecks: []state.HealthCheck{{Protocol: "MESOS_TCP", PortIndex: &index, Grace: 300 * time.Second, Interval: 60 * time.Second,
			Timeout: 20 * time.Second, Delay: 15 * time.Second, MaxFailures: 3}},
		Container: state.Container{Type: "MESOS"},
		Volumes:   []state.Mount{data, {Kind: state.MountHost, ContainerPath: "logs", HostPath: "/var/log/pg", ReadOnly: true}}})
	stateful.Resources[0] = take(offered(t, "cpus", 4, static), .5)
	docker := launchOf(t, state.Spec{Args: []string{"redis-server", "--port", "6379"}, CPUs: 1, MemMB: 1e7, DiskMB: 64,
		Ports: []state.Port{{Want: 10001, ContainerPort: 6379, Protocol: "tcp", Name: "redis"}},
		Container: state.Container{Type: "DOCKER", Image: "redis:7", ForcePull: true, Parameters: []state.Pair{{Key: "hostname", Value: "r"}},
			Network: "container/bridge"}, Volumes: []state.Mount{data, {Kind: state.MountExternal, ContainerPath: "/conf", Driver: "other", Pattern: "conf", Shared: true, ReadOnly: true}}})
	docker.Volumes[0].Managed = true // the isolator's plugin; without an isolator the driver's own
	image := launchOf(t, state.Spec{Args: []string{"-c", "x"}, CPUs: .1, MemMB: 32, Ports: []state.Port{{ContainerPort: 80, Protocol: "tcp"}},
		HealthChecks: []state.HealthCheck{{Protocol: "MESOS_HTTP", Path: "/ping", MaxFailures: 1}},
		Container:    state.Container{Type: "MESOS", Image: "alpine:3", Network: "container", NetName: "dcos", NetLabels: map[string]string{"a": "b"}}})
	plain := launchOf(t, state.Spec{Args: []string{"sleep", "100"}, CPUs: .1, MemMB: 32,
		HealthChecks: []state.HealthCheck{{Protocol: "COMMAND", Command: "test -e up", Interval: time.Second, MaxFailures: 2}}})
	secretive := launchOf(t, state.Spec{Cmd: "x", CPUs: .1, MemMB: 32, Env: map[string]string{"A": "b"}, EnvSecrets: map[string]string{"PW": "db/password"}, TTY: true,
		Container: state.Container{Type: "MESOS", Image: "private/x:1", PullSecret: "registry/config", Seccomp: &state.Seccomp{Profile: "strict.json"}},
		Volumes:   []state.Mount{{Kind: state.MountSecret, ContainerPath: "key.pem", Secret: "tls/key", ReadOnly: true}}})
	return map[string]scheduler.Call{
		"accept-secrets":        scheduler.Accept{Offers: []string{"O1"}, Agent: "S0", Launches: []scheduler.Launch{secretive}},
		"accept-pod":            scheduler.Accept{Offers: []string{"O1"}, Agent: "S0", Launches: []scheduler.Launch{podLaunch(t, ""), plain}},
		"accept-pod-network":    scheduler.Accept{Offers: []string{"O1"}, Agent: "S0", Launches: []scheduler.Launch{podLaunch(t, "dcos")}},
		"accept-stateful":       scheduler.Accept{Offers: []string{"O1", "O2"}, Agent: "S0", Launches: []scheduler.Launch{stateful}, Refuse: 5 * time.Second},
		"accept-docker":         scheduler.Accept{Offers: []string{"O1"}, Agent: "S0", Launches: []scheduler.Launch{docker}},
		"accept-image":          scheduler.Accept{Offers: []string{"O1"}, Agent: "S0", Launches: []scheduler.Launch{image}},
		"accept-plain":          scheduler.Accept{Offers: []string{"O1"}, Agent: "S0", Launches: []scheduler.Launch{plain, plain}},
		"accept-nothing":        scheduler.Accept{Offers: []string{"O1"}, Agent: "S0", Refuse: time.Second},
		"decline":               scheduler.Decline{Offers: []string{"O1", "O2"}, Refuse: 2 * time.Minute},
		"kill":                  scheduler.Kill{Task: "t1", Agent: "S0"},
		"kill-grace":            scheduler.Kill{Task: "t1", Grace: 3 * time.Second},
		"acknowledge":           scheduler.Acknowledge{Task: "t1", Agent: "S0", UUID: []byte("0123456789abcdef")},
		"reconcile":             scheduler.Reconcile{Tasks: []scheduler.ReconcileTask{{Task: "t1", Agent: "S0"}, {Task: "t2"}}},
		"reconcile-all":         scheduler.Reconcile{},
		"revive":                scheduler.Revive{},
		"suppress":              scheduler.Suppress{},
		"suppress-roles":        scheduler.Suppress{Roles: []string{"a", "b"}},
		"revive-roles":          scheduler.Revive{Roles: []string{"a"}},
		"accept-inverse":        scheduler.AcceptInverse{IDs: []string{"i1", "i2"}},
		"accept-reserve":        reserving(t),
		"accept-disk":           storage(t),
		"acknowledge-operation": scheduler.AcknowledgeOperation{ID: "op.1", Agent: "S0", Provider: "p", UUID: []byte("0123456789abcdef")},
		"reconcile-operations":  scheduler.ReconcileOperations{Operations: []scheduler.ReconcileOperation{{ID: "op.1", Agent: "S0"}, {ID: "op.2"}}},
		"decline-inverse":       scheduler.DeclineInverse{IDs: []string{"i1"}, Refuse: 5 * time.Second},
	}
}

// reserving is an ACCEPT that reserves under a parent role, creates and launches.
func reserving(t *testing.T) scheduler.Accept {
	parent := mesos.Resource_ReservationInfo{Type: mesos.Resource_ReservationInfo_STATIC.Enum(), Role: ptr("hold")}
	spec := state.Spec{Cmd: "run", CPUs: 1, MemMB: 64, Volumes: []state.Mount{{Kind: state.MountPersistent, ContainerPath: "data", SizeMB: 100}}}
	l := launchOf(t, spec)
	offer := &state.Offer{ID: "O1", Role: "hold/fast", Resources: []state.Resource{offered(t, "cpus", 4, parent), offered(t, "mem", 1024), offered(t, "disk", 2000)}}
	plan, no := reserve.Launch(place.NewPool([]*state.Offer{offer}), nil, &reserve.Wish{Owner: reserve.Owner{Cluster: "c", App: l.Def.App, Instance: l.Instance.ID}, Role: "hold/fast", Principal: "me",
		Spec: &spec, Volumes: []reserve.Volume{{ID: "prod_db#data#1", ContainerPath: "data", SizeMB: 100, Type: "root"}}}, 0)
	if len(no) > 0 {
		t.Fatal(no)
	}
	for n := range plan.Ops {
		plan.Ops[n].ID = fmt.Sprintf("op.%d", n+1)
	}
	l.Resources = plan.Task
	return scheduler.Accept{Offers: []string{"O1"}, Agent: "S0", Operations: plan.Ops, Launches: []scheduler.Launch{l}}
}

// storage has the operations on a storage provider's disks.
func storage(t *testing.T) scheduler.Accept {
	r := &mesos.Resource{Name: "disk", Type: mesos.SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: 1000}, ProviderID: &mesos.ResourceProviderID{Value: "p"},
		AllocationInfo: &mesos.Resource_AllocationInfo{Role: ptr("holdfast")},
		Disk:           &mesos.Resource_DiskInfo{Source: &mesos.Resource_DiskInfo_Source{Type: mesos.Resource_DiskInfo_Source_RAW, Profile: ptr("fast"), Vendor: ptr("v")}}}
	raw, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	disk := state.Resource{Name: "disk", Scalar: 100, AllocationRole: "holdfast", Provider: "p", Disk: &state.Disk{Source: "RAW", Profile: "fast", Vendor: "v"}, Raw: raw}
	return scheduler.Accept{Offers: []string{"O1"}, Agent: "S0", Operations: []reserve.Op{
		{ID: "op.1", Kind: reserve.CreateDisk, Resources: []state.Resource{disk}, Target: "MOUNT"},
		{ID: "op.2", Kind: reserve.CreateDisk, Resources: []state.Resource{disk}, Target: "BLOCK"},
		{ID: "op.3", Kind: reserve.DestroyDisk, Resources: []state.Resource{disk}}}}
}

func TestEncodeGolden(t *testing.T) {
	encoder := &Encoder{API: "http://127.0.0.1:8080"}
	for name, c := range cases(t) {
		t.Run(name, func(t *testing.T) {
			m, ok, err := encoder.Encode(c)
			if err != nil || !ok {
				t.Fatalf("encode: %v %v", ok, err)
			}
			raw, err := wire.JSON(m)
			if err != nil {
				t.Fatal(err)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, raw, "", " "); err != nil {
				t.Fatal(err)
			}
			pretty.WriteByte('\n')
			file := filepath.Join("testdata", name+".json")
			if *rewrite {
				if err := os.WriteFile(file, pretty.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(want, pretty.Bytes()) {
				t.Errorf("%s differs (go test -rewrite):\n%s", file, pretty.Bytes())
			}
		})
	}
}

func TestEncodeRefuses(t *testing.T) {
	one := 1
	for name, spec := range map[string]state.Spec{
		"executor":      {Cmd: "x", Executor: "/my/executor"},
		"volume kind":   {Cmd: "x", Volumes: []state.Mount{{Kind: "tape", ContainerPath: "d"}}},
		"container":     {Cmd: "x", Container: state.Container{Type: "LXC"}},
		"docker image":  {Cmd: "x", Container: state.Container{Type: "DOCKER"}},
		"port index":    {Cmd: "x", HealthChecks: []state.HealthCheck{{Protocol: "MESOS_TCP", PortIndex: &one}}},
		"check":         {Cmd: "x", HealthChecks: []state.HealthCheck{{Protocol: "GRPC", Port: 1}}},
		"docker ntwork": {Cmd: "x", Container: state.Container{Type: "DOCKER", Image: "i", Network: "weird"}},
	} {
		l := launchOf(t, spec)
		if _, _, err := (&Encoder{}).Encode(scheduler.Accept{Agent: "S0", Launches: []scheduler.Launch{l}}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := (&Encoder{}).Encode(scheduler.Accept{Launches: []scheduler.Launch{{}}}); err == nil {
		t.Error("an empty launch is encoded")
	}
	if _, ok, _ := (&Encoder{}).Encode(scheduler.Grant{}); ok {
		t.Error("a grant is no call for the master")
	}
}

// TestRecordedLaunch makes the launch that was recorded with a real Apache Mesos and looks for everything that was sent then.
func TestRecordedLaunch(t *testing.T) {
	spec := state.Spec{Cmd: "echo hello > data/f; sleep 1000", CPUs: .5, MemMB: 64, Container: state.Container{Type: "MESOS"},
		Volumes: []state.Mount{{Kind: state.MountExternal, ContainerPath: "data", Driver: "fake", Pattern: "vol-0"}}}
	agent := "34015ea4-b6c5-4b01-ba88-fd15c8f198ff-S0"
	l := scheduler.Launch{
		Instance:  &state.Instance{ID: "t1.0", App: "/t1"},
		Run:       &state.Run{Task: "t1", Agent: state.AgentID(agent)},
		Def:       &state.Def{App: "/t1", Spec: spec},
		Resources: []state.Resource{{Name: "cpus", Scalar: .5, AllocationRole: "stateful"}, {Name: "mem", Scalar: 64, AllocationRole: "stateful"}},
		Volumes: []scheduler.TaskVolume{{Ref: volume.Ref{Driver: "fake", Name: "vol-0"}, ContainerPath: "data",
			Options: map[string]string{"size": "5", "note": "a=b,c"}}},
	}
	m, _, err := (&Encoder{}).Encode(scheduler.Accept{Offers: []string{"34015ea4-b6c5-4b01-ba88-fd15c8f198ff-O0"}, Agent: state.AgentID(agent),
		Launches: []scheduler.Launch{l}, Refuse: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	m.FrameworkID = &mesos.FrameworkID{Value: "34015ea4-b6c5-4b01-ba88-fd15c8f198ff-0000"}
	raw, err := wire.JSON(m)
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	recorded, err := os.ReadFile("testdata/recorded-accept.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(recorded, &want); err != nil {
		t.Fatal(err)
	}
	for _, miss := range missing("", want, got) {
		t.Error(miss)
	}
}

// missing lists what is in want and not in got; the order of parameter lists is free.
func missing(path string, want, got any) (out []string) {
	switch w := want.(type) {
	case map[string]any:
		g, _ := got.(map[string]any)
		for k, v := range w {
			out = append(out, missing(path+"."+k, v, g[k])...)
		}
	case []any:
		g, _ := got.([]any)
		if len(g) != len(w) {
			return []string{fmt.Sprintf("%s: %d items, want %d", path, len(g), len(w))}
		}
		for i := range w {
			best := missing(fmt.Sprintf("%s[%d]", path, i), w[i], g[i])
			if strings.HasSuffix(path, ".parameter") {
				for j := range g {
					if len(missing("", w[i], g[j])) == 0 {
						best = nil
					}
				}
			}
			out = append(out, best...)
		}
	default:
		if !reflect.DeepEqual(want, got) {
			out = append(out, fmt.Sprintf("%s: %v, want %v", path, got, want))
		}
	}
	return out
}

func TestReservedResourceGoesBackAsOffered(t *testing.T) {
	dynamic := mesos.Resource_ReservationInfo{Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: ptr("holdfast/sub"), Principal: ptr("p"),
		Labels: &mesos.Labels{Labels: []mesos.Label{{Key: "holdfast_app", Value: ptr("/db")}, {Key: "flag"}}}}
	static := mesos.Resource_ReservationInfo{Type: mesos.Resource_ReservationInfo_STATIC.Enum(), Role: ptr("holdfast")}
	r := offered(t, "cpus", 4, static, dynamic)
	out, err := encodeResource(&state.Resource{Name: r.Name, Scalar: 1.5, AllocationRole: r.AllocationRole, Reservations: r.Reservations, Raw: r.Raw})
	if err != nil {
		t.Fatal(err)
	}
	if out.Scalar.Value != 1.5 || len(out.Reservations) != 2 || !reflect.DeepEqual(out.Reservations[1], dynamic) {
		t.Errorf("encoded as %+v", out)
	}
	r.Raw = nil // without the offered bytes it is rebuilt from what is known
	if out, err = encodeResource(&r); err != nil || len(out.Reservations) != 2 || out.Reservations[1].GetRole() != "holdfast/sub" {
		t.Errorf("rebuilt as %+v, %v", out, err)
	}
}

func TestJVMDouble(t *testing.T) {
	for in, want := range map[float64]string{1: "1.0", .5: "0.5", 128: "128.0", 0: "0.0", 1e7: "1.0E7", 12345678.9: "1.23456789E7", .0001: "1.0E-4", 9999999: "9999999.0"} {
		if got := jvmDouble(in); got != want {
			t.Errorf("%v prints %q, want %q", in, got, want)
		}
	}
}

func TestVariable(t *testing.T) {
	for in, want := range map[string]string{"data": "DATA", "var/lib/db-data": "VAR_LIB_DB_DATA", "a..b": "A_B", "x.": "X_", "Ünter": "_NTER"} {
		if got := variable(in); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}
