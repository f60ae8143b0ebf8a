package validate

import (
	"strings"
	"testing"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/holdfast-io/holdfast/framework/embedded/resource"
)

func str(s string) *string { return &s }

func scalar(name string, v float64) mesos.Resource {
	return mesos.Resource{Name: name, Type: mesos.SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: v},
		AllocationInfo: &mesos.Resource_AllocationInfo{Role: str("eng/db")}}
}

// reserved puts a stack of reservations on a resource; a role beginning with ! is static.
func reserved(r mesos.Resource, principal string, roles ...string) mesos.Resource {
	for _, role := range roles {
		info := mesos.Resource_ReservationInfo{Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: str(strings.TrimPrefix(role, "!"))}
		if role[0] == '!' {
			info.Type = mesos.Resource_ReservationInfo_STATIC.Enum()
		} else if principal != "" {
			info.Principal = &principal
		}
		r.Reservations = append(r.Reservations, info)
	}
	return r
}

func volumeOn(r mesos.Resource, id string) mesos.Resource {
	r.Disk = &mesos.Resource_DiskInfo{Persistence: &mesos.Resource_DiskInfo_Persistence{ID: id, Principal: str("me")},
		Volume: &mesos.Volume{ContainerPath: "data", Mode: mesos.RW.Enum()}}
	return r
}

func framework() *mesos.FrameworkInfo {
	return &mesos.FrameworkInfo{ID: &mesos.FrameworkID{Value: "f"}, Principal: str("me"), Roles: []string{"eng/db"},
		Capabilities: []mesos.FrameworkInfo_Capability{{Type: mesos.FrameworkInfo_Capability_MULTI_ROLE}}}
}

func reserveOp(l ...mesos.Resource) *mesos.Offer_Operation {
	return &mesos.Offer_Operation{Type: mesos.Offer_Operation_RESERVE, Reserve: &mesos.Offer_Operation_Reserve{Resources: l}}
}

func TestOperations(t *testing.T) {
	disk := reserved(scalar("disk", 100), "me", "eng/db")
	vol := volumeOn(disk, "v")
	grown := vol
	grown.Scalar = &mesos.Value_Scalar{Value: 164}
	extra := disk
	extra.Scalar = &mesos.Value_Scalar{Value: 64}
	for name, c := range map[string]struct {
		op     *mesos.Offer_Operation
		total  resource.List
		inUse  bool
		want   string        // part of the refusal
		from   resource.List // of the conversion when it is not refused
		to     resource.List
		nobody bool // asked by an operator without credentials
	}{
		"reserve": {op: reserveOp(disk), from: resource.List{scalar("disk", 100)}, to: resource.List{disk}},
		"refine a static reservation": {op: reserveOp(reserved(scalar("cpus", 1), "me", "!eng", "eng/db")),
			from: resource.List{reserved(scalar("cpus", 1), "", "!eng")}, to: resource.List{reserved(scalar("cpus", 1), "me", "!eng", "eng/db")}},
		"refine by a stranger role": {op: reserveOp(reserved(scalar("cpus", 1), "me", "!ops", "eng/db")), want: "is not a refinement of 'ops'"},
		"static on top":             {op: reserveOp(reserved(scalar("cpus", 1), "me", "eng", "!eng/db")), want: "cannot be STATIC"},
		"for another principal":     {op: reserveOp(reserved(scalar("cpus", 1), "you", "eng/db")), want: "attempted by authenticated principal 'me', which does not match a reserved resource in the request with principal 'you'"},
		"without principal":         {op: reserveOp(reserved(scalar("cpus", 1), "", "eng/db")), want: "there is a reserved resource in the request with no principal set"},
		"for the parent role":       {op: reserveOp(reserved(scalar("cpus", 1), "me", "eng")), want: "with role 'eng', but the resource was allocated to role 'eng/db'"},
		"not reserved":              {op: reserveOp(scalar("cpus", 1)), want: "is not dynamically reserved"},
		"allocated, by an operator": {op: reserveOp(reserved(scalar("cpus", 1), "", "eng/db")), nobody: true, want: "the operator API only allows reservations to be made to unallocated resources"},
		"unreserve": {op: &mesos.Offer_Operation{Type: mesos.Offer_Operation_UNRESERVE, Unreserve: &mesos.Offer_Operation_Unreserve{Resources: resource.List{disk}}},
			from: resource.List{disk}, to: resource.List{scalar("disk", 100)}},
		"unreserve a volume": {op: &mesos.Offer_Operation{Type: mesos.Offer_Operation_UNRESERVE, Unreserve: &mesos.Offer_Operation_Unreserve{Resources: resource.List{vol}}},
			want: "cannot be unreserved directly. Please destroy the persistent volume first"},
		"create": {op: &mesos.Offer_Operation{Type: mesos.Offer_Operation_CREATE, Create: &mesos.Offer_Operation_Create{Volumes: resource.List{vol}}},
			from: resource.List{disk}, to: resource.List{vol}},
		"create twice": {op: &mesos.Offer_Operation{Type: mesos.Offer_Operation_CREATE, Create: &mesos.Offer_Operation_Create{Volumes: resource.List{vol}}},
			total: resource.Unallocate(resource.List{vol}), want: "Persistence ID 'v' is not unique"},
		"create with a bad id": {op: &mesos.Offer_Operation{Type: mesos.Offer_Operation_CREATE, Create: &mesos.Offer_Operation_Create{Volumes: resource.List{volumeOn(disk, "../x")}}},
			want: "Invalid persistence ID for persistent volume: '../x' contains invalid characters"},
		"destroy": {op: &mesos.Offer_Operation{Type: mesos.Offer_Operation_DESTROY, Destroy: &mesos.Offer_Operation_Destroy{Volumes: resource.List{vol}}},
			total: resource.Unallocate(resource.List{vol}), from: resource.List{vol}, to: resource.List{disk}},
		"destroy nothing": {op: &mesos.Offer_Operation{Type: mesos.Offer_Operation_DESTROY, Destroy: &mesos.Offer_Operation_Destroy{Volumes: resource.List{vol}}},
			want: "Persistent volumes not found"},
		"destroy under a task": {op: &mesos.Offer_Operation{Type: mesos.Offer_Operation_DESTROY, Destroy: &mesos.Offer_Operation_Destroy{Volumes: resource.List{vol}}},
			total: resource.Unallocate(resource.List{vol}), inUse: true, want: "Persistent volumes in use"},
		"grow": {op: &mesos.Offer_Operation{Type: mesos.Offer_Operation_GROW_VOLUME, GrowVolume: &mesos.Offer_Operation_GrowVolume{Volume: vol, Addition: extra}},
			from: resource.List{vol, extra}, to: resource.List{grown}},
		"grow by ports": {op: &mesos.Offer_Operation{Type: mesos.Offer_Operation_GROW_VOLUME, GrowVolume: &mesos.Offer_Operation_GrowVolume{Volume: vol, Addition: scalar("mem", 1)}},
			want: "Incompatible resources in the 'GrowVolume.volume' and 'GrowVolume.addition' fields"},
		"shrink": {op: &mesos.Offer_Operation{Type: mesos.Offer_Operation_SHRINK_VOLUME, ShrinkVolume: &mesos.Offer_Operation_ShrinkVolume{Volume: grown, Subtract: mesos.Value_Scalar{Value: 64}}},
			from: resource.List{grown}, to: resource.List{vol, extra}},
		"shrink to nothing": {op: &mesos.Offer_Operation{Type: mesos.Offer_Operation_SHRINK_VOLUME, ShrinkVolume: &mesos.Offer_Operation_ShrinkVolume{Volume: vol, Subtract: mesos.Value_Scalar{Value: 100}}},
			want: "must be smaller than the size of 'ShrinkVolume.volume'"},
		"create disk": {op: &mesos.Offer_Operation{Type: mesos.Offer_Operation_CREATE_DISK}, want: "not managed by a resource provider"},
	} {
		ctx := OperationContext{Framework: framework(), Principal: str("me"), Total: c.total, InUse: func(*mesos.Resource) bool { return c.inUse }}
		if c.nobody {
			ctx.Framework, ctx.Principal = nil, nil
		}
		conv, err := Operation(c.op, ctx)
		switch {
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %s", name, err, c.want)
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want == "" && (!resource.Equal(conv.From, c.from) || !resource.Equal(conv.To, c.to)):
			t.Errorf("%s: %s becomes %s", name, resource.Format(conv.From), resource.Format(conv.To))
		}
	}
}

func TestFrameworks(t *testing.T) {
	multi := func(roles ...string) *mesos.FrameworkInfo {
		f := framework()
		f.Roles = roles
		return f
	}
	both := multi("a")
	both.Role = str("a")
	single := &mesos.FrameworkInfo{Roles: []string{"a"}}
	long := multi("a")
	huge := 1e300
	long.FailoverTimeout = &huge
	named := multi("a")
	named.ID = &mesos.FrameworkID{Value: "a/b"}
	for name, c := range map[string]struct {
		info       *mesos.FrameworkInfo
		suppressed []string
		want       string
	}{
		"none":       {info: multi()},
		"two":        {info: multi("a", "b/c"), suppressed: []string{"a"}},
		"twice":      {info: multi("a", "b", "a"), want: "'FrameworkInfo.roles' contains duplicate items: { a }"},
		"both":       {info: both, want: "'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable"},
		"single":     {info: single, want: "'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable"},
		"bad":        {info: multi("a/"), want: "'FrameworkInfo.roles' contains invalid role: Role 'a/' cannot end with a slash"},
		"suppressed": {info: multi("a"), suppressed: []string{"b"}, want: "Suppressed roles { b } are not contained in the set of roles"},
		"for ever":   {info: long, want: "The framework failover_timeout (1e+300) is invalid"},
		"id":         {info: named, want: "'a/b' contains invalid characters"},
	} {
		err := Framework(c.info, c.suppressed)
		if (err == nil) != (c.want == "") || err != nil && err.Error() != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
