// Command repo makes a DC/OS package repository in a folder, of the tarball that `make dist` made: the repository in each format, the icons, and
// nginx's settings to serve it. With --serve it serves the folder itself, with the content types that DC/OS insists on.
package main

import (
	"errors"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/packaging/dcos"
)

func main() {
	version := flag.String("version", "", "version of the package")
	assets := flag.String("assets", "", "URL below which the folder will be reached")
	artifact := flag.String("artifact", "", "the tarball holdfast-<version>-linux-amd64.tar.gz")
	release := flag.Int("release", 0, "revision of the package, from 0 on; a new package of the same version has a higher one")
	out := flag.String("out", "dist/dcos-repo", "the folder")
	serve := flag.String("serve", "", "serve the folder on this address, e.g. 0.0.0.0:8000")
	flag.Parse()
	if *version != "" || *serve == "" {
		if err := build(*version, *assets, *artifact, *release, *out); err != nil {
			fail(err)
		}
		fmt.Printf("%s holds the repository. Serve it at %s, then:\n  dcos package repo add --index=0 holdfast %s/repo-v5.json   (DC/OS 1.12 and later; repo-v4.json for 1.11)\n  dcos package install holdfast\n",
			*out, *assets, strings.TrimSuffix(*assets, "/"))
	}
	if *serve != "" {
		server := &http.Server{Addr: *serve, Handler: handler(*out), ReadHeaderTimeout: 10 * time.Second}
		fmt.Printf("serving %s on http://%s\n", *out, *serve)
		fail(server.ListenAndServe())
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "dcos repo:", err)
	os.Exit(1)
}

// build writes the folder. The repositories come last: a reader never finds one whose files are not there.
func build(version, assets, artifact string, release int, out string) error {
	if assets == "" || artifact == "" {
		return errors.New("--assets and --artifact are needed")
	}
	p, err := dcos.Open(version, assets)
	if err != nil {
		return err
	}
	tarball, err := os.ReadFile(artifact)
	if err != nil {
		return fmt.Errorf("read the tarball: %w", err)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	// The name under which resource.json has it.
	if err := write(out, "holdfast-"+version+"-linux-amd64.tar.gz", tarball); err != nil {
		return err
	}
	for name, size := range map[string]int{"icon-small.png": 48, "icon-medium.png": 96, "icon-large.png": 256} {
		if err := drawIcon(filepath.Join(out, name), size); err != nil {
			return err
		}
	}
	nginx := "# Included in a server block whose root is this folder.\n"
	for _, format := range dcos.Formats() {
		raw, err := p.Repository(format, release)
		if err != nil {
			return err
		}
		name := fileOf(format)
		if err := write(out, name, raw); err != nil {
			return err
		}
		nginx += fmt.Sprintf("location = /%s { default_type '%s'; types { } }\n", name, dcos.ContentType(format))
	}
	return write(out, "nginx.conf", []byte(nginx))
}

func fileOf(format string) string {
	major, _, _ := strings.Cut(format, ".")
	return "repo-v" + major + ".json"
}

func write(dir, name string, raw []byte) error {
	temp := filepath.Join(dir, "."+name+".new")
	if err := os.WriteFile(temp, raw, 0o644); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(dir, name))
}

// handler serves a repository's folder as DC/OS wants it.
func handler(dir string) http.Handler {
	files := http.FileServer(http.Dir(dir))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, format := range dcos.Formats() {
			if path.Base(r.URL.Path) == fileOf(format) {
				w.Header().Set("Content-Type", dcos.ContentType(format))
			}
		}
		files.ServeHTTP(w, r)
	})
}

// drawIcon draws the sign of the web page, a holdfast on a teal square, at a size in pixels.
func drawIcon(name string, size int) error {
	img := image.NewRGBA(image.Rect(0, 0, size, size))
	for y := range size {
		for x := range size {
			img.Set(x, y, iconAt((float64(x)+.5)*32/float64(size), (float64(y)+.5)*32/float64(size)))
		}
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := png.Encode(f, img); err != nil {
		return err
	}
	return f.Close()
}

// strokes are the lines of the sign, on a square of 32: a stem, and the three fingers that hold the rock.
var strokes = [][4]float64{{16, 5, 16, 26}, {16, 18, 9.5, 21}, {9.5, 21, 7, 26}, {16, 18, 22.5, 21}, {22.5, 21, 25, 26}, {16, 11, 11.5, 10}, {11.5, 10, 10, 8}}

func iconAt(x, y float64) color.Color {
	const radius, width = 7, 1.2
	dx, dy := math.Max(0, math.Abs(x-16)-16+radius), math.Max(0, math.Abs(y-16)-16+radius)
	if math.Hypot(dx, dy) > radius {
		return color.Transparent
	}
	for _, s := range strokes {
		vx, vy := s[2]-s[0], s[3]-s[1]
		t := math.Max(0, math.Min(1, ((x-s[0])*vx+(y-s[1])*vy)/(vx*vx+vy*vy)))
		if math.Hypot(x-s[0]-t*vx, y-s[1]-t*vy) < width {
			return color.White
		}
	}
	return color.RGBA{0x0e, 0x7c, 0x86, 0xff}
}
