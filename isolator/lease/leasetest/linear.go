package leasetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// The history of Linearizable is over two registers. Every value written is new, so that a version is known by the value that was
// read with it.
type (
	pair  [2]int // the values; 0: the register does not exist
	input struct {
		read   int // register read, -1: a transaction
		expect pair
		write  pair // 0: only check (expect) that register
	}
	output struct {
		value   int
		done    bool
		unknown bool // it may have happened, now or later
	}
)

var model = porcupine.NondeterministicModel{
	Init: func() []any { return []any{pair{}} },
	Step: func(state, in, out any) []any {
		s, i, o := state.(pair), in.(input), out.(output)
		if i.read >= 0 {
			if o.value == s[i.read] {
				return []any{s}
			}
			return nil
		}
		next := s
		for k, w := range i.write {
			if w != 0 {
				next[k] = w
			}
		}
		switch met := s == i.expect; {
		case o.unknown && met:
			return []any{s, next}
		case o.unknown, !o.done && !met:
			return []any{s}
		case o.done && met:
			return []any{next}
		}
		return nil
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v -> %+v", in, out) },
}

// Linearizable lets workers read and write two registers at once and has porcupine look for an order that explains what they saw.
// disturb, when given, may cut connections meanwhile; it is called over and over until it returns false or the workers are done. Each
// lost reply makes the search longer, so a few cuts are better than many.
func Linearizable(t *testing.T, s Server, workers, each int, disturb func() bool) {
	t.Helper()
	var (
		mu      sync.Mutex
		history []porcupine.Operation
		value   int
		begin   = time.Now()
		wg      sync.WaitGroup
		seed    = uint64(time.Now().UnixNano())
	)
	t.Logf("seed %d", seed)
	fresh := func() int { mu.Lock(); defer mu.Unlock(); value++; return value }
	for w := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c := &clerk{r: s.Client(), rng: rand.New(rand.NewPCG(seed, uint64(w))), fresh: fresh}
			for range each {
				var in input
				var out output
				var call time.Duration
				pause, patience := time.Millisecond, time.Now().Add(time.Minute) // a real server may need seconds to lead again
				for ok := false; !ok; pause = min(2*pause, 50*time.Millisecond) {
					if time.Now().After(patience) {
						t.Error("the authority does not come back")
						return
					}
					call = time.Since(begin)
					if in, out, ok = c.operate(); !ok {
						time.Sleep(pause)
					}
				}
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: w, Input: in, Output: out, Call: int64(call), Return: int64(time.Since(begin))})
				mu.Unlock()
			}
		}()
	}
	over := make(chan struct{})
	go func() { wg.Wait(); close(over) }()
	for running := true; running; {
		select {
		case <-over:
			running = false
		default:
			if disturb == nil || !disturb() {
				<-over
			}
		}
	}
	check(t, history)
}

func check(t *testing.T, history []porcupine.Operation) {
	t.Helper()
	end, unknown, done := int64(0), 0, 0
	for _, o := range history {
		end = max(end, o.Return)
	}
	for i := range history {
		if o := history[i].Output.(output); o.unknown {
			history[i].Return = end + 1 // it may still happen
			history[i].ClientId = 1000 + i
			unknown++
		} else if o.done {
			done++
		}
	}
	t.Logf("%d operations, %d writes, %d of unknown outcome", len(history), done, unknown)
	if done == 0 {
		t.Error("no write succeeded")
	}
	switch porcupine.CheckOperationsTimeout(model.ToModel(), history, 5*time.Second) {
	case porcupine.Illegal:
		t.Errorf("the history is not linearizable: %+v", history)
	case porcupine.Unknown:
		t.Log("porcupine did not finish in time")
	}
}

// clerk makes the operations of one worker.
type clerk struct {
	r     lease.Registers
	rng   *rand.Rand
	fresh func() int
	known [2]lease.Entry
}

var linearKeys = [2]string{"lin/a", "lin/b"}

// operate makes one operation; ok is false when nothing happened and nothing was seen.
func (c *clerk) operate() (in input, out output, ok bool) {
	limit, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if c.rng.IntN(2) == 0 {
		k := c.rng.IntN(2)
		e, err := c.r.Get(limit, linearKeys[k])
		if err != nil && !fault.Is(err, fault.NotFound) {
			return in, out, false
		}
		c.known[k] = e
		return input{read: k}, output{value: valueOf(e)}, true
	}
	in = input{read: -1, expect: pair{valueOf(c.known[0]), valueOf(c.known[1])}}
	which := c.rng.IntN(3)
	ops := make([]lease.Op, 2)
	for k := range ops {
		ops[k] = lease.Op{Kind: lease.OpCheck, Key: linearKeys[k], Expect: c.known[k].Version}
		if which == 2 || which == k {
			in.write[k] = c.fresh()
			ops[k].Kind, ops[k].Value = lease.OpPut, []byte(fmt.Sprint(in.write[k]))
		}
	}
	entries, err := c.r.Txn(limit, ops...)
	switch {
	case err == nil:
		for k, w := range in.write {
			if w != 0 {
				c.known[k] = entries[k]
			}
		}
		return in, output{done: true}, true
	case fault.Is(err, fault.Conflict):
		// Look again, so that the next one may succeed. This is not part of the history.
		c.known[0], _ = c.r.Get(ctx, linearKeys[0])
		c.known[1], _ = c.r.Get(ctx, linearKeys[1])
		return in, output{}, true
	case fault.Is(err, fault.Unknown):
		return in, output{unknown: true}, true
	}
	return in, out, false
}

func valueOf(e lease.Entry) int {
	n := 0
	_, _ = fmt.Sscan(string(e.Value), &n)
	return n
}
