package sandbox

import (
	"archive/tar"
	"archive/zip"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// Bounds on what one task fetches. They are generous for a laptop and keep a wrong URI from filling its disk.
const (
	FetchLimit   = 4 << 30          // bytes of one download, and of what one archive unpacks to
	FetchFiles   = 200_000          // entries of one archive
	FetchTimeout = 10 * time.Minute // for all URIs of a task
)

// Fetch brings the URIs of a command into a sandbox: file://, absolute paths, http:// and https://. Archives (.tar, .tar.gz, .tgz, .tar.bz2, .tbz2, .zip,
// .gz) are unpacked unless extract is false; the fetcher cache is not kept, so `cache` changes nothing. Nothing is written outside of the sandbox.
func Fetch(ctx context.Context, dir string, uris []mesos.CommandInfo_URI, user *syscall.Credential) error {
	if len(uris) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, FetchTimeout, fmt.Errorf("fetching took longer than %v", FetchTimeout))
	defer cancel()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open the sandbox: %w", err)
	}
	defer root.Close()
	for _, u := range uris {
		f := fetcher{ctx: ctx, root: root, user: user, left: FetchLimit}
		if err := f.fetch(u); err != nil {
			return fmt.Errorf("fetch '%s': %w", u.Value, err)
		}
	}
	return nil
}

type fetcher struct {
	ctx   context.Context
	root  *os.Root
	user  *syscall.Credential
	left  int64 // bytes that may still be written
	files int
}

func (f *fetcher) fetch(u mesos.CommandInfo_URI) error {
	source, err := parse(u.Value)
	if err != nil {
		return err
	}
	name := path.Base(source.Path)
	if u.OutputFile != nil {
		name = *u.OutputFile
	}
	if name = path.Clean(name); path.IsAbs(name) || !filepath.IsLocal(name) || name == "." || strings.ContainsRune(name, 0) {
		return fmt.Errorf("output file '%s' is not a path inside of the sandbox", name)
	}
	if err := f.mkdir(path.Dir(name)); err != nil {
		return err
	}
	if err := f.download(source, name); err != nil {
		return err
	}
	f.left = FetchLimit
	executable := u.Executable != nil && *u.Executable
	switch {
	case executable:
		return f.root.Chmod(name, 0o755)
	case u.Extract == nil || *u.Extract:
		return f.extract(name)
	}
	return nil
}

func parse(value string) (*url.URL, error) {
	if strings.HasPrefix(value, "/") {
		return &url.URL{Scheme: "file", Path: value}, nil
	}
	u, err := url.Parse(value)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "http", "https":
		return u, nil
	case "file":
		if u.Host != "" && u.Host != "localhost" {
			return nil, fmt.Errorf("file of another host '%s'", u.Host)
		}
		return u, nil
	}
	return nil, fmt.Errorf("scheme '%s' is not fetched by the embedded engine (file, http and https are)", u.Scheme)
}

func (f *fetcher) download(source *url.URL, name string) error {
	if source.Scheme == "file" {
		in, err := f.openHost(source.Path)
		if err != nil {
			return err
		}
		defer in.Close()
		return f.write(name, 0o644, in)
	}
	req, err := http.NewRequestWithContext(f.ctx, http.MethodGet, source.String(), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP status %s", resp.Status)
	}
	return f.write(name, 0o644, resp.Body)
}

// openHost opens a file of this machine, which the task's own user must be able to read: fetching as root must not hand root's files to others.
func (f *fetcher) openHost(p string) (*os.File, error) {
	in, err := os.OpenFile(p, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO must not block
	if err != nil {
		return nil, err
	}
	st, err := in.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("'%s' is not a plain file", p)
	}
	if err == nil && f.user != nil {
		err = readableBy(p, f.user)
	}
	if err != nil {
		in.Close()
		return nil, err
	}
	return in, nil
}

// readableBy checks the permission bits of a file and of every directory on the way to it.
func readableBy(p string, user *syscall.Credential) error {
	real, err := filepath.EvalSymlinks(p)
	if err != nil {
		return err
	}
	want := uint32(4)
	for at := real; ; at = filepath.Dir(at) {
		var st syscall.Stat_t
		if err := syscall.Stat(at, &st); err != nil {
			return err
		}
		bits := st.Mode & 7
		if st.Uid == user.Uid {
			bits = st.Mode >> 6 & 7
		} else if inGroup(st.Gid, user) {
			bits = st.Mode >> 3 & 7
		}
		if user.Uid != 0 && bits&want == 0 {
			return fmt.Errorf("uid %d may not read '%s'", user.Uid, p)
		}
		if at == "/" {
			return nil
		}
		want = 1
	}
}

func inGroup(gid uint32, user *syscall.Credential) bool {
	if gid == user.Gid {
		return true
	}
	for _, g := range user.Groups {
		if g == gid {
			return true
		}
	}
	return false
}

// write makes or replaces a file, within the bounds.
func (f *fetcher) write(name string, mode fs.FileMode, in io.Reader) error {
	if f.files++; f.files > FetchFiles {
		return fmt.Errorf("more than %d files", FetchFiles)
	}
	if err := f.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out, err := f.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode&0o777|0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(&untilDone{f.ctx, in}, f.left+1))
	if f.left -= n; err == nil && f.left < 0 {
		err = fmt.Errorf("larger than the limit of %d bytes", int64(FetchLimit))
	}
	if err == nil && f.user != nil {
		err = out.Chown(int(f.user.Uid), int(f.user.Gid))
	}
	if e := out.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = f.root.Remove(name)
	}
	return err
}

// untilDone ends reading when the context ends.
type untilDone struct {
	ctx context.Context
	in  io.Reader
}

func (u *untilDone) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.in.Read(p)
}

// mkdir makes a directory and its parents, the task's own.
func (f *fetcher) mkdir(name string) error {
	at := ""
	for _, part := range strings.Split(path.Clean(name), "/") {
		if part == "." || part == "" {
			continue
		}
		at = path.Join(at, part)
		err := f.root.Mkdir(at, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil && f.user != nil {
			err = f.root.Lchown(at, int(f.user.Uid), int(f.user.Gid))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// extract unpacks what its name says is an archive into the archive's directory, as Mesos's fetcher does.
func (f *fetcher) extract(name string) error {
	base := strings.ToLower(path.Base(name))
	has := func(suffixes ...string) bool {
		for _, s := range suffixes {
			if strings.HasSuffix(base, s) {
				return true
			}
		}
		return false
	}
	archive, err := f.root.Open(name)
	if err != nil {
		return err
	}
	defer archive.Close()
	into := path.Dir(name)
	switch {
	case has(".tar"):
		return f.untar(archive, into)
	case has(".tar.gz", ".tgz"):
		z, err := gzip.NewReader(archive)
		if err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
		return f.untar(z, into)
	case has(".tar.bz2", ".tbz2"):
		return f.untar(bzip2.NewReader(archive), into)
	case has(".tar.xz", ".txz"):
		return errors.New("xz archives are not unpacked by the embedded engine; use gzip or bzip2")
	case has(".zip"):
		return f.unzip(archive, into)
	case has(".gz"):
		z, err := gzip.NewReader(archive)
		if err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
		return f.write(strings.TrimSuffix(name, path.Ext(name)), 0o644, z)
	}
	return nil
}

// inside gives the place of an archive's entry, or an error for one that wants to be outside.
func inside(into, entry string) (string, error) {
	p := path.Join(into, entry)
	if path.IsAbs(entry) || !filepath.IsLocal(p) || strings.ContainsRune(p, 0) {
		return "", fmt.Errorf("unpack: entry %q is outside of the sandbox", entry)
	}
	return p, nil
}

func (f *fetcher) untar(in io.Reader, into string) error {
	r := tar.NewReader(in)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
		p, err := inside(into, h.Name)
		if err != nil {
			return err
		}
		if err := f.untarEntry(h, p, into, r); err != nil {
			return fmt.Errorf("unpack %q: %w", h.Name, err)
		}
	}
}

func (f *fetcher) untarEntry(h *tar.Header, p, into string, r io.Reader) error {
	if h.Typeflag != tar.TypeDir {
		if err := f.mkdir(path.Dir(p)); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return f.mkdir(p)
	case tar.TypeReg:
		return f.write(p, h.FileInfo().Mode(), r)
	case tar.TypeSymlink:
		return f.symlink(h.Linkname, p)
	case tar.TypeLink:
		from, err := inside(into, h.Linkname)
		if err != nil {
			return err
		}
		return f.root.Link(from, p)
	case tar.TypeXGlobalHeader, tar.TypeXHeader:
		return nil
	}
	return fmt.Errorf("entries of type %q are not unpacked", h.Typeflag)
}

// symlink makes a link as it stands in the archive: it may point anywhere, but nothing is written through it to the outside.
func (f *fetcher) symlink(target, p string) error {
	if f.files++; f.files > FetchFiles {
		return fmt.Errorf("more than %d files", FetchFiles)
	}
	if err := f.root.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return f.root.Symlink(target, p)
}

func (f *fetcher) unzip(archive *os.File, into string) error {
	st, err := archive.Stat()
	if err != nil {
		return err
	}
	z, err := zip.NewReader(archive, st.Size())
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	for _, e := range z.File {
		p, err := inside(into, e.Name)
		if err != nil {
			return err
		}
		if strings.HasSuffix(e.Name, "/") {
			if err := f.mkdir(p); err != nil {
				return fmt.Errorf("unpack %q: %w", e.Name, err)
			}
			continue
		}
		if !e.Mode().IsRegular() {
			return fmt.Errorf("unpack %q: entries of mode %v are not unpacked", e.Name, e.Mode())
		}
		if err := f.mkdir(path.Dir(p)); err != nil {
			return fmt.Errorf("unpack %q: %w", e.Name, err)
		}
		in, err := e.Open()
		if err != nil {
			return fmt.Errorf("unpack %q: %w", e.Name, err)
		}
		err = f.write(p, e.Mode(), in)
		in.Close()
		if err != nil {
			return fmt.Errorf("unpack %q: %w", e.Name, err)
		}
	}
	return nil
}
