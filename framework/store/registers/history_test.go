package registers

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/storetest"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/leasetest"
)

var ctx = context.Background()

// cluster is two processes that fight for one store over bad networks, beside what must be true.
type cluster struct {
	t      *testing.T
	seed   uint64
	rnd    *rand.Rand
	memory *leasetest.Memory
	now    time.Time
	back   [2]*Backend
	term   [2]store.Term

	leader  int // who may commit; -1: nobody that we know of
	certain map[string]string
	pending []store.Op // of unknown outcome
	n       int
	events  map[string]int
}

func newCluster(t *testing.T, seed uint64) *cluster {
	c := &cluster{t: t, seed: seed, rnd: rand.New(rand.NewPCG(seed, 7)), memory: leasetest.NewMemory(), now: time.Unix(1e9, 0), leader: -1,
		certain: map[string]string{}, events: map[string]int{}}
	for i := range c.back {
		bad := &leasetest.Faulty{Registers: c.memory, Mishap: func(write bool, _ []lease.Op) leasetest.Mishap {
			if c.rnd.IntN(12) > 0 {
				return leasetest.None
			}
			return leasetest.Mishap(1 + c.rnd.IntN(4))
		}}
		c.back[i] = open(t, bad, Options{Renew: time.Hour, Now: func() time.Time { return c.now }}) // renewals are played, not waited for
	}
	return c
}

func (c *cluster) lead(i int) {
	term, err := c.back[i].Lead(ctx, storetest.A, fmt.Sprint("process ", i))
	if err != nil {
		c.events["not led: "+string(fault.ClassOf(err))]++
		return
	}
	c.events["led"]++
	c.leader, c.term[i] = i, term
	c.settle(i)
}

// settle reads as the new leader does, and finds out what became of the commit of unknown outcome.
func (c *cluster) settle(i int) {
	got, err := c.load(c.back[i])
	for try := 0; err != nil; try++ {
		if got, err = c.load(c.back[i]); try > 100 {
			c.t.Fatalf("seed %d: load: %v", c.seed, err)
		}
	}
	if c.pending != nil {
		with := maps.Clone(c.certain)
		do(with, c.pending)
		if maps.Equal(got, with) {
			c.events["unknown commit was done"]++
			c.certain = with
		} else {
			c.events["unknown commit was not done"]++
		}
		c.pending = nil
	}
	c.compare("after lead", got)
}

func (c *cluster) compare(when string, got map[string]string) {
	if !maps.Equal(got, c.certain) {
		c.t.Fatalf("seed %d, %s: %d records with %s last, want %d with %s", c.seed, when, len(got), got["meta/last"], len(c.certain), c.certain["meta/last"])
	}
}

func (c *cluster) load(b *Backend) (map[string]string, error) {
	got := map[string]string{}
	err := b.Load(ctx, storetest.A, func(k string, v []byte) error {
		got[strings.TrimPrefix(k, store.Prefix(storetest.A))] = string(v)
		return nil
	})
	return got, err
}

func do(m map[string]string, ops []store.Op) {
	for _, op := range ops {
		k := strings.TrimPrefix(op.Key, store.Prefix(storetest.A))
		if op.Value == nil {
			delete(m, k)
			continue
		}
		m[k] = string(op.Value)
	}
}

func (c *cluster) commit(i int) {
	c.n++
	ops := []store.Op{storetest.Put("meta/last", strconv.Itoa(c.n))}
	size := 1 + c.rnd.IntN(6)
	if c.rnd.IntN(4) == 0 {
		size = 100 + c.rnd.IntN(100)
	}
	for _, k := range c.rnd.Perm(300)[:size] {
		if c.rnd.IntN(3) == 0 {
			ops = append(ops, storetest.Del(fmt.Sprint("apps/", k)))
			continue
		}
		ops = append(ops, storetest.Put(fmt.Sprint("apps/", k), fmt.Sprint(c.n)))
	}
	err := c.back[i].Commit(ctx, storetest.A, c.term[i], ops)
	switch {
	case err == nil && i != c.leader:
		c.t.Fatalf("seed %d: process %d committed in term %d although %d leads", c.seed, i, c.term[i], c.leader)
	case err == nil:
		c.events["committed"]++
		do(c.certain, ops)
	case i == c.leader:
		c.events["not committed: "+string(fault.ClassOf(err))]++
		c.leader = -1
		if fault.Is(err, fault.Unknown) {
			c.pending = ops
		}
	default:
		c.events["deposed"]++
	}
}

// Two processes lead, commit, read, pause and are cut off at random. What was acknowledged is there, what was refused is not, what is
// unknown is there whole or not at all, nobody reads half a commit, and nothing of a deposed leader ever arrives.
func TestHistories(t *testing.T) {
	rounds, first := 60, uint64(time.Now().UnixNano())
	if s := os.Getenv("HOLDFAST_SEED"); s != "" {
		first, _ = strconv.ParseUint(s, 10, 64)
	}
	if r, err := strconv.Atoi(os.Getenv("HOLDFAST_ROUNDS")); err == nil {
		rounds = r
	}
	events := map[string]int{}
	for round := range uint64(rounds) {
		c := newCluster(t, first+round)
		for range 60 {
			i := c.rnd.IntN(2)
			switch c.rnd.IntN(8) {
			case 0:
				c.now = c.now.Add(time.Duration(c.rnd.IntN(90)) * time.Minute)
			case 1:
				c.lead(i)
			case 2:
				s, _ := c.back[i].seat(storetest.A)
				_, _ = s.write(ctx, func(r *record) { r.Beat++ }, nil) // a renewal
			case 3:
				if got, err := c.load(c.back[i]); err == nil && c.pending == nil {
					c.compare("load", got)
				}
			default:
				c.commit(i)
			}
			if c.leader < 0 && c.rnd.IntN(2) == 0 {
				c.lead(i)
			}
		}
		for k, n := range c.events {
			events[k] += n
		}
	}
	t.Logf("seed %d: %v", first, events)
	if os.Getenv("HOLDFAST_SEED") == "" && (events["deposed"] == 0 || events["unknown commit was done"] == 0 || events["unknown commit was not done"] == 0) {
		t.Errorf("the histories do not reach what they are for: %v", events)
	}
}

// A standby takes what stands still, not what moves, and at once what was given up; a gap in its looks begins the count anew.
func TestTakeover(t *testing.T) {
	m, now := leasetest.NewMemory(), time.Unix(1e9, 0)
	o := Options{Renew: time.Hour, Takeover: 4 * time.Hour, Now: func() time.Time { return now }, URL: "http://a:1"}
	a, b := open(t, m, o), open(t, m, o)
	if _, err := a.Lead(ctx, storetest.A, "a"); err != nil {
		t.Fatal(err)
	}
	look := func(after time.Duration, want fault.Class) {
		t.Helper()
		now = now.Add(after)
		if _, err := b.Lead(ctx, storetest.A, "b"); fault.ClassOf(err) != want || want == fault.Conflict && !strings.Contains(err.Error(), "a leads") {
			t.Fatalf("lead: %v, want %s", err, want)
		}
	}
	look(0, fault.Conflict)
	look(time.Hour, fault.Conflict)
	s, _ := a.seat(storetest.A)
	if _, err := s.write(ctx, func(r *record) { r.Beat++ }, nil); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		look(time.Hour, fault.Conflict) // counts from the first look after the renewal
	}
	look(3*time.Hour, fault.Conflict) // a gap: who knows what was not seen
	for range 3 {
		look(time.Hour, fault.Conflict)
	}
	lost := a.Deposed(storetest.A)
	look(time.Hour, "")
	select {
	case <-lost:
		t.Fatal("deposed before it could know")
	default:
	}
	if _, err := s.write(ctx, func(r *record) { r.Beat++ }, nil); !fault.Is(err, fault.Conflict) {
		t.Errorf("renewal of a deposed leader: %v", err)
	}
	<-lost
	if l, err := a.Leader(ctx, storetest.A); err != nil || l.Holder != "b" || l.Term != 2 || l.URL != "http://a:1" {
		t.Errorf("leader %+v, %v", l, err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Lead(ctx, storetest.A, "a"); err != nil {
		t.Errorf("lead after the other resigned: %v", err)
	}
}

// What is not a record of ours is named, and the others stand.
func TestDamage(t *testing.T) {
	m := leasetest.NewMemory()
	b := open(t, m, Options{})
	term, err := b.Lead(ctx, storetest.A, "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(ctx, storetest.A, term, []store.Op{storetest.Put("apps/a", "1")}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Txn(ctx, lease.Op{Kind: lease.OpPut, Key: statePrefix(storetest.A) + "apps/strange", Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	got, err := (&cluster{t: t}).load(b)
	if err != nil || got["apps/a"] != "1" || len(got) != 2 {
		t.Errorf("%q, %v", got, err)
	}
	if _, ok := got["damaged/apps/strange"]; !ok {
		t.Errorf("the strange register is not named: %q", got)
	}
	e, _ := m.Get(ctx, leaderKey(storetest.A))
	if _, err := m.Txn(ctx, lease.Op{Kind: lease.OpPut, Key: e.Key, Expect: e.Version, Value: []byte(`{"v":2,"kind":"leader"}`)}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Lead(ctx, storetest.A, "a"); !fault.Is(err, fault.Internal) {
		t.Errorf("lead over a record of a newer program: %v", err)
	}
}

func FuzzDecodeOps(f *testing.F) {
	f.Add(encodeOps([]store.Op{storetest.Put("a", "x"), storetest.Del("b"), storetest.Put("c", "")}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if ops, err := decodeOps(raw); err == nil {
			if again, err := decodeOps(encodeOps(ops)); err != nil || len(again) != len(ops) {
				t.Errorf("%v, %v", again, err)
			}
		}
	})
}
