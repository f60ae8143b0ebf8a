package csi

import (
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
)

func TestParseFlag(t *testing.T) {
	o, err := ParseFlag("pool=unix:///run/a=b.sock,names=/shared/n,ids=name,scope=zone,secrets=/s,fs=xfs,timeout=5s,controller=unix:///c,freeze=yes", "/d")
	if err != nil || o.Name != "csi/pool" || o.Endpoint != "unix:///run/a=b.sock" || o.Dir != "/d/csi/pool" || o.Names != "/shared/n" || !o.IDsAreNames ||
		o.Scope != "zone" || o.Secrets != "/s" || o.FSType != "xfs" || o.CallLimit != 5*time.Second || o.Controller != "unix:///c" || !o.Freeze {
		t.Errorf("%+v %v", o, err)
	}
	for _, bad := range []string{"", "x", "=unix:///x", "x=unix:///x,", "x=unix:///x,ids=uuid", "x=unix:///x,timeout=soon", "x=unix:///x,timeout=-1s", "x=unix:///x,what=1", "x=unix:///x,freeze=perhaps", "x=unix:///x,controller="} {
		if _, err := ParseFlag(bad, "/d"); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// FuzzParseFlag: whatever is given, New is not handed a path that leaves its place, since it checks each.
func FuzzParseFlag(f *testing.F) {
	f.Add("pool=unix:///run/a.sock,names=/n")
	f.Add("../x=unix:///a,ids=name")
	f.Fuzz(func(t *testing.T, s string) {
		o, err := ParseFlag(s, "/d")
		if err != nil {
			return
		}
		o.Mounts = "/m"
		if o.check() == nil && o.Dir[:7] != "/d/csi/" {
			t.Errorf("%q gives %q", s, o.Dir)
		}
	})
}
