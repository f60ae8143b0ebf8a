// Command records writes numbered records into its volume, each with fsync, and acknowledges each in a file outside of it. It is
// the app of `holdfast demo`: whatever is killed or moved, every acknowledged record must be found again.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/examples/records/ledger"
)

func main() {
	dir := flag.String("dir", "data", "the volume")
	acks := flag.String("acks", "", "directory of the acknowledgements, outside of the volume; default: the sandbox")
	every := flag.Duration("every", 100*time.Millisecond, "pause between two records")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *dir, *acks, *every); err != nil {
		fmt.Fprintln(os.Stderr, "records:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir, acks string, every time.Duration) error {
	app, ordinal := os.Getenv("HOLDFAST_APP_ID"), os.Getenv("HOLDFAST_INSTANCE")
	incarnation, err := strconv.ParseUint(os.Getenv("HOLDFAST_INCARNATION"), 10, 64)
	if err != nil || app == "" || ordinal == "" {
		return fmt.Errorf("HOLDFAST_APP_ID, HOLDFAST_INSTANCE and HOLDFAST_INCARNATION must be set: run it as an app of Holdfast")
	}
	instance := strings.ReplaceAll(strings.Trim(app, "/"), "/", "_") + "." + ordinal
	w, found, err := ledger.Open(filepath.Join(dir, "records"), filepath.Join(acks, "acks-"+instance), instance, incarnation)
	if err != nil {
		return err
	}
	defer w.Close()
	fmt.Printf("instance %s, run %d: found %d records\n", instance, incarnation, found)
	for written := 0; ; written++ {
		r, err := w.Append()
		if err != nil {
			return err
		}
		if written%100 == 0 {
			fmt.Printf("record %d is safe\n", r.Sequence)
		}
		select {
		case <-ctx.Done():
			fmt.Printf("told to stop after record %d\n", r.Sequence)
			return nil
		case <-time.After(every):
		}
	}
}
