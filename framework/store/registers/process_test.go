package registers

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/storetest"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/servertest"
	"github.com/holdfast-io/holdfast/isolator/lease/dial"
)

// The test binary also plays the processes that are killed and stopped.
func TestMain(m *testing.M) {
	if address := os.Getenv("HOLDFAST_STORE_WRITER"); address != "" {
		fmt.Fprintln(os.Stderr, writer(address, os.Getenv("HOLDFAST_STORE_NAME")))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writer leads when it may, counts on from what the store has, and says each number once it is committed.
func writer(address, who string) error {
	r, err := dial.Open(address, dial.Options{})
	if err != nil {
		return err
	}
	b, err := Open(r, Options{Name: address, Renew: 200 * time.Millisecond, Takeover: 2 * time.Second})
	if err != nil {
		return err
	}
	for {
		term, err := limited(func(ctx context.Context) (store.Term, error) { return b.Lead(ctx, storetest.A, who) })
		if err == nil {
			err = count(b, term, who)
		}
		fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
		time.Sleep(100 * time.Millisecond)
	}
}

func limited[T any](f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return f(ctx)
}

func count(b *Backend, term store.Term, who string) error {
	n, err := limited(func(ctx context.Context) (n int, err error) {
		err = b.Load(ctx, storetest.A, func(key string, value []byte) error {
			if key == Key("meta/n") {
				n, _ = strconv.Atoi(string(value))
			}
			return nil
		})
		return n, err
	})
	fmt.Println("led", term, n)
	for ; err == nil; n++ {
		ops := []store.Op{storetest.Put("meta/n", strconv.Itoa(n+1)), storetest.Put(fmt.Sprint("numbers/", n+1), who)}
		if n%20 == 0 { // larger than one transaction
			for i := range 100 {
				ops = append(ops, storetest.Put(fmt.Sprint("large/", i), strconv.Itoa(n+1)))
			}
		}
		_, err = limited(func(ctx context.Context) (struct{}, error) {
			return struct{}{}, b.Commit(ctx, storetest.A, term, ops)
		})
		if err == nil {
			fmt.Println("done", n+1)
		}
	}
	return err
}

// Key makes a key of the suite's cluster.
func Key(rest string) string { return storetest.Key(rest) }

// writerProcess is one writer process as the test sees it.
type writerProcess struct {
	name string
	cmd  *exec.Cmd
}

// race is the writers and what they said.
type race struct {
	t       *testing.T
	address string
	mu      sync.Mutex
	by      map[int]string // who was told that a number is committed
	errs    []string
}

func (r *race) start(name string) *writerProcess {
	r.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HOLDFAST_STORE_WRITER="+r.address, "HOLDFAST_STORE_NAME="+name)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	go func() {
		for in := bufio.NewScanner(out); in.Scan(); {
			r.said(name, in.Text())
		}
	}()
	return &writerProcess{name, cmd}
}

func (r *race) said(name, line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text, done := strings.CutPrefix(line, "done ")
	if !done {
		r.errs = append(r.errs, name+": "+line)
		return
	}
	n, _ := strconv.Atoi(text)
	if other := r.by[n]; other != "" {
		r.t.Errorf("%d was committed by %s and by %s", n, other, name)
	}
	r.by[n] = name
}

// commits waits until a writer has committed n times from now on, and tells how long the first took.
func (r *race) commits(name string, n int) time.Duration {
	r.t.Helper()
	began, first := time.Now(), time.Duration(0)
	count := func() (c int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, by := range r.by {
			if by == name {
				c++
			}
		}
		return c
	}
	before := count()
	for now := before; now < before+n; now = count() {
		if now > before && first == 0 {
			first = time.Since(began)
		}
		if time.Since(began) > 30*time.Second {
			r.mu.Lock()
			r.t.Fatalf("%s has committed %d times of %d; the writers said %q", name, now-before, n, r.errs[max(0, len(r.errs)-20):])
		}
		time.Sleep(5 * time.Millisecond)
	}
	return first
}

func (r *race) signal(w *writerProcess, s syscall.Signal) {
	r.t.Helper()
	if err := w.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

// run has leaders killed and stopped, and the server away, in the middle of commits.
func (r *race) run(outage func()) {
	t := r.t
	a := r.start("a")
	r.commits("a", 30)
	b := r.start("b")
	time.Sleep(2500 * time.Millisecond) // longer than a takeover: renewals count
	r.signal(a, syscall.SIGKILL)
	t.Logf("b commits %v after a was killed", r.commits("b", 30))
	c := r.start("c")
	r.commits("b", 10)
	r.signal(b, syscall.SIGSTOP)
	t.Logf("c commits %v after b was stopped", r.commits("c", 30))
	r.signal(b, syscall.SIGCONT)
	r.commits("c", 60) // b, deposed, tries and does not get through
	r.signal(b, syscall.SIGKILL)
	time.Sleep(100 * time.Millisecond)
	outage()
	t.Logf("c commits %v after the server is back", r.commits("c", 30))
	r.signal(c, syscall.SIGKILL)
	time.Sleep(100 * time.Millisecond)
	r.verify()
}

// verify wants every number once, by whom it was acknowledged to, and no half of a commit.
func (r *race) verify() {
	t := r.t
	back := open(t, dialAt(t, r.address), Options{})
	got := storetest.All(t, back, storetest.A)
	n, _ := strconv.Atoi(got["meta/n"])
	for i := 1; i <= n; i++ {
		who := got[fmt.Sprint("numbers/", i)]
		if said := r.by[i]; who == "" || said != "" && said != who {
			t.Errorf("number %d is by %q, and was acknowledged to %q", i, who, said)
		}
	}
	large := (n-1)/20*20 + 1
	for i := range 100 {
		if v := got[fmt.Sprint("large/", i)]; v != strconv.Itoa(large) {
			t.Fatalf("large/%d is %s after %d commits, want %d", i, v, n, large)
		}
	}
	if len(got) != 1+n+100 {
		t.Errorf("%d records after %d commits", len(got), n)
	}
	for i := range r.by {
		if i > n {
			t.Errorf("%d was acknowledged, and the store ends at %d", i, n)
		}
	}
	t.Logf("%d commits, %d acknowledged, none lost or doubled; %d errors on the way", n, len(r.by), len(r.errs))
}

func newRace(t *testing.T, address string) *race {
	return &race{t: t, address: address, by: map[int]string{}}
}

func TestHeavyLeadersEndZooKeeper(t *testing.T) {
	heavy.Require(t, servertest.NeedZooKeeper)
	z := servertest.StartZooKeeper(t, 1)
	newRace(t, "zk://"+z.Servers()[0]+"/race").run(func() {
		z.Kill(0)
		time.Sleep(3 * time.Second)
		z.Start(0)
		z.Await(0)
	})
}

func TestHeavyLeadersEndConsul(t *testing.T) {
	heavy.Require(t, servertest.NeedConsul)
	c := servertest.StartConsul(t, "")
	newRace(t, "consul://"+c.Addr()+"/race").run(func() {
		c.Kill()
		time.Sleep(3 * time.Second)
		c.Start()
	})
}

// What one transaction takes at the most really fits, keys as long and as strange as they get included.
func TestHeavyLargestTransaction(t *testing.T) {
	heavy.Require(t, servertest.NeedZooKeeper, servertest.NeedConsul)
	for _, address := range []string{"zk://" + servertest.StartZooKeeper(t, 1).Servers()[0] + "/large", "consul://" + servertest.StartConsul(t, "").Addr() + "/large"} {
		b := open(t, dialAt(t, address), Options{})
		term, err := b.Lead(ctx, storetest.A, "a")
		if err != nil {
			t.Fatal(err)
		}
		var ops, gone []store.Op
		size := maxSingle.Bytes
		for i := range maxSingle.Writes {
			key := Key(fmt.Sprintf("apps/%02d", i) + strings.Repeat("%&=~<'\"\\", 115))
			op := store.Op{Key: key, Value: []byte(strings.Repeat("<", maxSingle.Bytes/maxSingle.Writes-len(key)))}
			ops, gone = append(ops, op), append(gone, store.Op{Key: key})
			size -= len(op.Key) + len(op.Value)
		}
		if !fits(ops) || size > maxSingle.Writes {
			t.Fatalf("%d bytes short", size)
		}
		record := []store.Op{{Key: Key("defs/a/1"), Value: []byte(strings.Repeat("x", store.MaxRecord))}}
		for _, batch := range [][]store.Op{ops, ops, gone, record} {
			if err := b.Commit(ctx, storetest.A, term, batch); err != nil {
				t.Errorf("%s: %v", address, err)
			}
		}
		if got := storetest.All(t, b, storetest.A); len(got) != 1 {
			t.Errorf("%d records", len(got))
		}
	}
}
