package isolator

import (
	"context"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// encrypting is a driver that says that it encrypts what it makes.
type encrypting struct {
	driver.Driver
	made map[string]bool
}

func (e *encrypting) Facts(ctx context.Context) (driver.Facts, error) {
	f, err := e.Driver.Facts(ctx)
	f.Encrypts = true
	return f, err
}

func (e *encrypting) Create(ctx context.Context, s driver.Spec) (driver.Info, error) {
	e.made[s.Name] = s.Options["encrypt"] == "true"
	s.Options = nil
	return e.Driver.Create(ctx, s)
}

func (e *encrypting) Get(ctx context.Context, name string) (driver.Info, error) {
	i, err := e.Driver.Get(ctx, name)
	i.Encrypted = e.made[name]
	return i, err
}

// A volume that must be encrypted is made by a driver that does it, or not at all.
func TestEncrypt(t *testing.T) {
	c := newCluster(t)
	n := c.node()
	ask := func(n *node, name string) lease.Request {
		uid, ref := timeID(), volume.Ref{Driver: "pool", Name: name}
		if known, err := c.auth.ClaimByRef(bg, ref); err == nil {
			uid = known.VolumeUID
		} else if _, err := c.auth.Create(bg, uid, ref, softLease, false); err != nil {
			t.Fatal(err)
		}
		return c.request(n, lease.Request{Kind: lease.RequestCreate, VolumeUID: uid, Ref: ref, Encrypt: true, Options: map[string]string{"encrypt": "true"}})
	}
	r := ask(n, "secret")
	if r.State != lease.RequestFailed || r.Class != string(fault.Invalid) || !strings.Contains(r.Error, "driver pool on this node is not known to encrypt volumes") {
		t.Errorf("of a driver that does not say that it encrypts: %+v", r)
	}
	if _, err := n.Get(bg, volume.Ref{Driver: "pool", Name: "secret"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("something was made: %v", err)
	}
	c.volume(n, "plain")
	if r := ask(n, "plain"); r.State != lease.RequestFailed || r.Class != string(fault.Conflict) || !strings.Contains(r.Error, "exists and is not known to be encrypted") {
		t.Errorf("one that exists unencrypted: %+v", r)
	}
	e := &encrypting{made: map[string]bool{}}
	able := c.node(func(o *Options) {
		e.Driver = o.Drivers[0]
		o.Drivers = []driver.Driver{e}
	})
	if r := ask(able, "secret"); r.Outcome != "created" || !e.made["secret"] {
		t.Errorf("of a driver that encrypts: %+v", r)
	}
	if r := ask(able, "secret"); r.Outcome != "created" {
		t.Errorf("again: %+v", r)
	}
	if r := ask(able, "plain"); r.Class != string(fault.Conflict) {
		t.Errorf("one that exists unencrypted, of a driver that encrypts: %+v", r)
	}
}
