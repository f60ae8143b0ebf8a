package scheduler

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestHistories runs random histories against a model of the world (world_test.go) and looks at the promises: never two mounts of
// one volume, no ACCEPT without its grants, no task twice, nothing mounted that was not created; and once the faults stop, every app as
// wanted and nothing left over. HOLDFAST_ROUNDS and HOLDFAST_SEED make it longer, or repeat one history.
func TestHistories(t *testing.T) {
	rounds, seed := 150, int64(1)
	if n, err := strconv.Atoi(os.Getenv("HOLDFAST_ROUNDS")); err == nil {
		rounds = n
	}
	if n, err := strconv.ParseInt(os.Getenv("HOLDFAST_SEED"), 10, 64); err == nil {
		seed = n
		t.Logf("HOLDFAST_SEED=%d", n)
	}
	for n := range rounds {
		if err := runHistory(seed + int64(n)); err != nil {
			t.Fatalf("HOLDFAST_SEED=%d HOLDFAST_ROUNDS=1: %v", seed+int64(n), err)
		}
	}
}

func runHistory(seed int64) (err error) {
	w := newWorld(seed)
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		file := filepath.Join(os.TempDir(), fmt.Sprintf("holdfast-history-%d.log", seed))
		_ = os.WriteFile(file, []byte(strings.Join(w.trace, "\n")), 0o644)
		if b, ok := r.(brokenPromise); ok {
			err = fmt.Errorf("%s\n(history in %s)", string(b), file)
			return
		}
		fmt.Println("history in", file)
		panic(r)
	}()
	w.step(Loaded{}, 0)
	w.subscribe()
	w.fromAuth = append(w.fromAuth, w.nodesEvent(), w.claimsEvent(true))
	for range 400 + w.r.Intn(800) {
		w.turn()
	}
	w.settleDown()
	checkIndex(w.s)
	return nil
}
