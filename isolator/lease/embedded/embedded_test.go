package embedded

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

func TestSmoke(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(filepath.Join(dir, "authority.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l, err := s.Listen(filepath.Join(dir, "a.sock"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Dial("unix://" + l.Path())
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	a := lease.New(c, lease.Options{})
	if _, err := a.Init(ctx, "c1"); err != nil {
		t.Fatal(err)
	}
	k, err := lease.NewKeeper(a, lease.KeeperOptions{Clock: lease.Monotonic(), Node: func() lease.Node {
		return lease.Node{UID: "n1", BootID: "b1", Hostname: "h1", AgentID: "a1", Grade: lease.GradeSoft}
	}, Verify: func(context.Context) error { return nil }, Lost: func(why string) { t.Log("lost", why) }})
	if err != nil {
		t.Fatal(err)
	}
	go k.Run(ctx)
	<-k.Ready()
	ref := volume.Ref{Driver: "pool", Name: "db"}
	if _, err := a.Create(ctx, "v1", ref, lease.Policy{}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Grant(ctx, lease.GrantArgs{VolumeUID: "v1", Epoch: 1, Agent: "a1", Node: "n1", Nonce: "x", Policy: lease.Policy{Mode: "lease", MinGrade: "soft"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Hold(ctx, lease.HoldArgs{VolumeUID: "v1", Epoch: 1, Nonce: "x", Node: "n1", Generation: k.Generation()}); err != nil {
		t.Fatal(err)
	}
	s2, _ := s.Listen(filepath.Join(dir, "b.sock"))
	c2, _ := Dial(s2.Path())
	a2 := lease.New(c2, lease.Options{})
	tk, err := lease.NewTaker(a2, lease.TakerOptions{By: "test"})
	if err != nil {
		t.Fatal(err)
	}
	go tk.Run(ctx)
	time.Sleep(time.Second)
	l.Cut()
	start := time.Now()
	for {
		cv, err := a2.ClaimByRef(ctx, ref)
		if err != nil {
			t.Fatal(err)
		}
		if cv.State == lease.Free {
			t.Logf("free after %v: %+v; keeper: %v", time.Since(start), cv, k.Why())
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.Heal()
	time.Sleep(1200 * time.Millisecond)
	n, _ := a2.Node(ctx, "n1")
	t.Logf("%+v", n)
}
