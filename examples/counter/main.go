// Command counter is a small HTTP server that counts visits and keeps the count in its volume, durably, before it answers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	dir := flag.String("dir", "data", "the volume")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *dir, os.Getenv("PORT0")); err != nil {
		fmt.Fprintln(os.Stderr, "counter:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, dir, port string) error {
	c := &counter{file: filepath.Join(dir, "count")}
	n, err := c.read()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return err
	}
	fmt.Printf("instance %s counts on http://%s from %d\n", os.Getenv("HOLDFAST_INSTANCE"), l.Addr(), n)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { c.answer(w, 0) })
	mux.HandleFunc("POST /{$}", func(w http.ResponseWriter, _ *http.Request) { c.answer(w, 1) })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

type counter struct {
	mu   sync.Mutex
	file string
}

func (c *counter) answer(w http.ResponseWriter, add int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.read()
	if err == nil && add > 0 {
		n += add
		err = c.write(n)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintln(w, n)
}

func (c *counter) read() (int, error) {
	raw, err := os.ReadFile(c.file)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(raw)))
}

// write replaces the file: a crash leaves the old count or the new one.
func (c *counter) write(n int) error {
	f, err := os.Create(c.file + ".new")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, n)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(c.file+".new", c.file); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(c.file))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
