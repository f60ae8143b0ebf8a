package framework

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/registers"
	"github.com/holdfast-io/holdfast/framework/store/storetest"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease/leasetest"
	"github.com/holdfast-io/holdfast/scheduler"
)

// process is a Framework that shares its store with others.
type process struct {
	*Framework
	j    *journal
	back *registers.Backend
	stop context.CancelFunc
	done chan error
}

func start(t *testing.T, m *leasetest.Memory, who string, change ...func(*Config, *registers.Options)) *process {
	t.Helper()
	o := registers.Options{Name: "memory", Renew: 30 * time.Millisecond, Takeover: 2 * time.Second}
	for _, f := range change {
		f(new(Config), &o)
	}
	back, err := registers.Open(m, o)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{j: newJournal(), back: back, done: make(chan error, 1)}
	nodes := &fakeNodes{j: p.j, err: make(chan error)}
	c := Config{Step: writeApp, Master: &fakeMaster{j: p.j}, Nodes: func(func(scheduler.Event)) (Nodes, error) { return nodes, nil },
		RetryMin: time.Millisecond, RetryMax: 10 * time.Millisecond, TickEvery: time.Hour, Standby: true, StandbyEvery: 20 * time.Millisecond}
	if c.Store, err = store.Open(context.Background(), back, storetest.A, who); err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(&c, &o)
	}
	if p.Framework, err = New(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = func() { cancel(); _ = back.Close() }
	go func() { p.done <- p.Run(ctx) }()
	t.Cleanup(p.stop)
	return p
}

func (p *process) scale(n int) error {
	_, err := p.Do(context.Background(), scheduler.ScaleApp{App: "/a", Instances: n})
	return err
}

func awaitReady(t *testing.T, p *process, ready bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); p.Ready() != ready; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("ready is %v after 5 s", !ready)
		}
	}
}

// Two processes on one store: one leads, the other says who, takes over when it ends, and gives back when it is deposed.
func TestStandby(t *testing.T) {
	m := leasetest.NewMemory()
	a := start(t, m, "a")
	awaitReady(t, a, true)
	if err := a.scale(1); err != nil {
		t.Fatal(err)
	}
	b := start(t, m, "b")
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		err := b.scale(2)
		if fault.Is(err, fault.Unavailable) && strings.Contains(err.Error(), "a leads") && !b.Ready() {
			break
		}
		if err == nil || time.Now().After(end) {
			t.Fatalf("the standby answers %v", err)
		}
	}
	a.stop()
	awaitReady(t, b, true)
	if err := b.scale(2); err != nil {
		t.Fatal(err)
	}
	if app := b.Framework.view.Apps["/a"]; app.Rev != 2 {
		t.Errorf("the new leader did not go on from the old one's state: %+v", app)
	}
	// b stands still (its renewals do not arrive), c takes over; b notices although it has nothing to commit, and stands by.
	c := start(t, m, "c")
	third, err := registers.Open(m, registers.Options{Name: "memory", Renew: time.Millisecond, Takeover: 6 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for err = fault.New(fault.Conflict, ""); err != nil; { // seizes it, as if b had stood still
		_, err = third.Lead(context.Background(), storetest.A, "third")
	}
	awaitReady(t, b, false)
	if b.j.index("master ends") < 0 {
		t.Error("a deposed leader is still subscribed")
	}
	if err := third.Close(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); b.Ready() == c.Ready(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("leading: b %v, c %v", b.Ready(), c.Ready())
		}
	}
}

// A leader that is asked to go lets another lead, and leads again itself when there is none.
func TestAbdicate(t *testing.T) {
	m := leasetest.NewMemory()
	a := start(t, m, "a")
	awaitReady(t, a, true)
	if err := a.scale(1); err != nil {
		t.Fatal(err)
	}
	term := a.Framework.c.Store.Term()
	a.Abdicate()
	for end := time.Now().Add(10 * time.Second); a.Framework.c.Store.Term() == term; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("alone, it does not lead again")
		}
	}
	awaitReady(t, a, true)
	b := start(t, m, "b")
	a.Abdicate()
	awaitReady(t, b, true)
	if err := b.scale(2); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, a, false)
	a.Abdicate() // it does not lead: nothing happens
	b.stop()
	awaitReady(t, a, true)
}
