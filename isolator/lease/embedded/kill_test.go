package embedded

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// The test binary also plays the server that is killed.
func TestMain(m *testing.M) {
	dir := os.Getenv("HOLDFAST_EMBEDDED_SERVE")
	if dir == "" {
		os.Exit(m.Run())
	}
	s, err := Open(filepath.Join(dir, "registers.db"))
	if err == nil {
		_, err = s.Listen(filepath.Join(dir, "a.sock"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	select {}
}

func serveProcess(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HOLDFAST_EMBEDDED_SERVE="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("server: %q %v", line, err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

// The server is killed with -9 in the middle of writes, ten times: every write that was acknowledged is there, no write that was
// refused is, and no version comes twice.
func TestHeavyServerKilled(t *testing.T) {
	heavy.Require(t)
	dir := t.TempDir()
	const writers = 6
	acknowledged := make([]int, writers)
	versions := map[uint64]string{}
	var mu sync.Mutex
	for round := range 10 {
		server := serveProcess(t, dir)
		client, err := Dial(filepath.Join(dir, "a.sock"))
		if err != nil {
			t.Fatal(err)
		}
		limit, stop := context.WithTimeout(context.Background(), 10*time.Second)
		var wg sync.WaitGroup
		for w := range writers {
			wg.Add(1)
			go func() {
				defer wg.Done()
				key := "w/" + strconv.Itoa(w)
				e, err := client.Get(limit, key)
				if n, _ := strconv.Atoi(string(e.Value)); err == nil && n != acknowledged[w] && n != acknowledged[w]+1 {
					t.Errorf("round %d: %s is %d, acknowledged was %d", round, key, n, acknowledged[w])
				} else if err == nil {
					acknowledged[w] = n
				} else if acknowledged[w] > 0 {
					t.Errorf("round %d: %s is gone: %v", round, key, err)
				}
				for err = nil; err == nil; {
					next := acknowledged[w] + 1
					var out []lease.Entry
					out, err = client.Txn(limit, lease.Op{Kind: lease.OpPut, Key: key, Expect: e.Version, Value: []byte(strconv.Itoa(next))})
					if err == nil {
						e = out[0]
						acknowledged[w] = next
						mu.Lock()
						if other, twice := versions[e.Version]; twice {
							t.Errorf("version %d of %s was that of %s", e.Version, key, other)
						}
						versions[e.Version] = key + "=" + strconv.Itoa(next)
						mu.Unlock()
					}
				}
			}()
		}
		time.Sleep(time.Duration(50+20*round) * time.Millisecond)
		if err := server.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		stop()
		_ = server.Wait()
		_ = client.Close()
	}
	t.Logf("%d writes acknowledged over 10 kills", len(versions))
}
