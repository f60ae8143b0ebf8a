package isolatortest_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// TestHeavyTorture kills the isolator at random moments while several volumes go through mounts and unmounts, and checks that what was
// written stays, and that nothing is left mounted or held. HOLDFAST_TORTURE sets its time (default 8s, a minute in `make torture`), HOLDFAST_SEED its seed.
func TestHeavyTorture(t *testing.T) {
	length := 8 * time.Second
	if os.Getenv("HOLDFAST_ROUNDS") != "" { // make torture
		length = time.Minute
	} else {
		heavy.Require(t)
	}
	if d, err := time.ParseDuration(os.Getenv("HOLDFAST_TORTURE")); err == nil {
		length = d
	}
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("HOLDFAST_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("HOLDFAST_SEED=%d", seed)
	m := newMachine(t, 0)
	m.start("")
	end := time.Now().Add(length)
	var wg sync.WaitGroup
	workers := make([]*worker, 6)
	for i := range workers {
		w := &worker{m: m, ref: volume.Ref{Driver: "pool", Name: fmt.Sprintf("t%d", i)}, uid: uuid.Must(uuid.NewV7()).String(), rnd: rand.New(rand.NewPCG(seed, uint64(i)))}
		if _, err := m.auth.Create(bg, w.uid, w.ref, softLease, false); err != nil {
			t.Fatal(err)
		}
		if _, ok := m.request(lease.Request{Kind: lease.RequestCreate, VolumeUID: w.uid, Ref: w.ref}); !ok {
			t.Fatal("not created")
		}
		workers[i] = w
		wg.Add(1)
		go func() {
			defer wg.Done()
			for time.Now().Before(end) {
				w.round()
			}
		}()
	}
	rnd := rand.New(rand.NewPCG(seed, 99))
	kills := 0
	for time.Now().Before(end) {
		time.Sleep(time.Duration(20+rnd.IntN(300)) * time.Millisecond)
		m.kill()
		kills++
		if rnd.IntN(6) == 0 {
			time.Sleep(time.Duration(rnd.IntN(3500)) * time.Millisecond) // perhaps past the deadline
		}
		m.start("")
	}
	wg.Wait()
	rounds := 0
	for _, w := range workers {
		w.finish()
		rounds += w.written
	}
	if left := m.mounts(); len(left) != 0 {
		t.Errorf("left mounted: %+v", left)
	}
	t.Logf("%d kills, %d acknowledged writes", kills, rounds)
	if rounds == 0 {
		t.Error("nothing was ever written")
	}
}

// worker takes one volume round and round, as one instance's launches would.
type worker struct {
	m       *machine
	ref     volume.Ref
	uid     string
	rnd     *rand.Rand
	written int // acknowledged
}

func (w *worker) round() {
	c, err := w.m.auth.Claim(bg, w.uid)
	if err != nil || c.State == lease.Held {
		_, _ = w.m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: w.ref.Name})
		time.Sleep(5 * time.Millisecond)
		return
	}
	path, err := w.m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: w.ref.Name, Options: w.grant(c)})
	if err == nil {
		w.write(path)
		time.Sleep(time.Duration(w.rnd.IntN(50)) * time.Millisecond)
	} else {
		time.Sleep(10 * time.Millisecond)
	}
	_, _ = w.m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: w.ref.Name}) // Mesos unmounts also what did not mount
}

func (w *worker) grant(c lease.ClaimVersion) map[string]string {
	if c.State == lease.Granted {
		_, _ = w.m.auth.Cancel(bg, w.uid, c.Epoch, c.Nonce)
	}
	g := volume.Grant{VolumeUID: w.uid, Epoch: c.Epoch + 1, Nonce: uuid.NewString(), Task: "t", MustExist: true}
	_, _ = w.m.auth.Grant(bg, lease.GrantArgs{VolumeUID: w.uid, Epoch: g.Epoch, Node: w.m.nodeUID(), Nonce: g.Nonce, Policy: softLease, Owner: "t"})
	return g.Encode(nil)
}

// write appends a line, and checks that all lines before it are there. It writes only while the mount is there: where it was taken down
// meanwhile, because the deadline has passed, a task would have been killed.
func (w *worker) write(path string) {
	name := filepath.Join(path, "lines")
	raw, err := os.ReadFile(name)
	if err != nil && (w.written > 0 || !os.IsNotExist(err)) {
		if c, cerr := w.m.auth.Claim(bg, w.uid); cerr == nil && c.State == lease.Held && len(w.m.mounts()) > 0 {
			w.m.Errorf("%s: %v, %d lines were written", w.ref, err, w.written)
		}
		return
	}
	if have := strings.Count(string(raw), "\n"); have < w.written {
		w.m.Errorf("%s: %d lines, %d were acknowledged", w.ref, have, w.written)
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return
	}
	_, err = fmt.Fprintln(f, w.written)
	if f.Close() == nil && err == nil {
		w.written = strings.Count(string(raw), "\n") + 1
	}
}

func (w *worker) finish() {
	w.m.Helper()
	w.m.eventually("volume "+w.ref.Name+" is given back", func() bool {
		_, _ = w.m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: w.ref.Name})
		return w.m.claim(w.uid).State != lease.Held
	})
	raw, err := os.ReadFile(filepath.Join(w.m.pool, w.ref.Name, "data", "lines"))
	if have := strings.Count(string(raw), "\n"); have < w.written {
		w.m.Errorf("%s: %d lines at the end, %d were acknowledged (%v)", w.ref, have, w.written, err)
	}
}
