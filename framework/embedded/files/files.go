// Package files serves the sandboxes of one agent of the embedded engine, read-only, in the shapes of Mesos's /files endpoints. Tasks own their sandboxes
// and may put links and FIFOs into them: nothing outside is ever opened.
package files

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"
)

// MaxRead bounds, in bytes, one answer of /files/read and READ_FILE, as Mesos's sixteen pages do.
const MaxRead = 16 * 4096

// Files reads inside the sandboxes of one agent, and nowhere else: links that lead out of them are refused.
type Files struct{ Dir string }

// Info is one entry of /files/browse.
type Info struct {
	Path  string `json:"path"`
	Mode  string `json:"mode"`
	Nlink uint64 `json:"nlink"`
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime"`
	UID   string `json:"uid"`
	GID   string `json:"gid"`
}

// open opens a path below the sandboxes. It may be the absolute path that /state shows as `directory`, or begin at slaves/.
func (f *Files) open(p string) (*os.File, error) {
	if f.Dir == "" {
		return nil, fs.ErrNotExist
	}
	if strings.ContainsRune(p, 0) || len(p) > 4096 {
		return nil, errors.New("bad path")
	}
	base := filepath.Join(f.Dir, "slaves")
	rel := strings.TrimPrefix(filepath.Clean("/"+p), "/")
	if abs := "/" + rel; abs == base || strings.HasPrefix(abs, base+"/") {
		rel = strings.TrimPrefix(strings.TrimPrefix(abs, base), "/")
	} else if r, ok := strings.CutPrefix(rel, "slaves/"); ok {
		rel = r
	} else {
		return nil, fs.ErrNotExist
	}
	root, err := os.OpenRoot(base)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if rel == "" {
		rel = "."
	}
	h, err := root.OpenFile(rel, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO must not block
	if err != nil {
		return nil, err
	}
	if st, err := h.Stat(); err != nil || !st.Mode().IsRegular() && !st.IsDir() {
		h.Close()
		return nil, errors.New("neither a file nor a directory")
	}
	return h, nil
}

// Read returns a part of a file, at most MaxRead bytes, and the size of the whole.
func (f *Files) Read(p string, offset, length int64) (data []byte, size int64, err error) {
	h, err := f.open(p)
	if err != nil {
		return nil, 0, err
	}
	defer h.Close()
	st, err := h.Stat()
	if err != nil {
		return nil, 0, err
	}
	if st.IsDir() {
		//lint:ignore ST1005 Mesos's own text
		return nil, 0, errors.New("Cannot read a directory")
	}
	if length < 0 || length > MaxRead {
		length = MaxRead
	}
	buf := make([]byte, max(0, min(length, st.Size()-offset)))
	n, err := h.ReadAt(buf, offset)
	if err != nil && err != io.EOF {
		return nil, 0, err
	}
	return buf[:n], st.Size(), nil
}

// List returns the entries of a directory, at most ten thousand.
func (f *Files) List(p string) ([]Info, error) {
	h, err := f.open(p)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	entries, err := h.ReadDir(10_000)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("list: %w", err)
	}
	infos := []Info{}
	for _, e := range entries {
		st, err := e.Info()
		if err != nil {
			continue
		}
		info := Info{Path: path.Join(p, e.Name()), Mode: modeText(st.Mode()), Size: st.Size(), Mtime: st.ModTime().Unix()}
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			info.Nlink, info.UID, info.GID = uint64(sys.Nlink), userName(sys.Uid), groupName(sys.Gid)
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// modeText is the mode as `ls` shows it.
func modeText(m fs.FileMode) string {
	kind := "-"
	switch {
	case m.IsDir():
		kind = "d"
	case m&fs.ModeSymlink != 0:
		kind = "l"
	case m&fs.ModeNamedPipe != 0:
		kind = "p"
	case m&fs.ModeSocket != 0:
		kind = "s"
	}
	return kind + m.Perm().String()[1:]
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

func groupName(gid uint32) string {
	id := strconv.FormatUint(uint64(gid), 10)
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}

// ServeRead answers {"data":"…","offset":n}. An offset of -1, or none, asks for the size of the file.
func (f *Files) ServeRead(w http.ResponseWriter, r *http.Request) {
	offset, err := number(r, "offset")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	length, err := number(r, "length")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if offset == -1 {
		length = 0
	}
	data, size, err := f.Read(r.FormValue("path"), max(0, offset), length)
	if err != nil {
		fileError(w, err)
		return
	}
	if offset == -1 {
		offset = size
	}
	reply(w, map[string]any{"data": wholeRunes(data), "offset": offset})
}

// wholeRunes drops a character that the end of the part has cut: the next part begins with it... unless nothing would be left.
func wholeRunes(data []byte) string {
	for cut := 0; cut < utf8.UTFMax && cut < len(data); cut++ {
		if end := data[:len(data)-cut]; utf8.Valid(end) {
			return string(end)
		}
	}
	return string(data)
}

func number(r *http.Request, name string) (int64, error) {
	text := r.FormValue(name)
	if text == "" {
		return -1, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < -1 {
		//lint:ignore ST1005 Mesos's own text
		return 0, fmt.Errorf("Failed to parse %s: '%.32s'", name, text)
	}
	return n, nil
}

// ServeBrowse answers the entries of a directory.
func (f *Files) ServeBrowse(w http.ResponseWriter, r *http.Request) {
	infos, err := f.List(r.FormValue("path"))
	if err != nil {
		fileError(w, err)
		return
	}
	reply(w, infos)
}

// ServeDownload answers a whole file.
func (f *Files) ServeDownload(w http.ResponseWriter, r *http.Request) {
	h, err := f.open(r.FormValue("path"))
	if err != nil {
		fileError(w, err)
		return
	}
	defer h.Close()
	st, err := h.Stat()
	if err != nil || st.IsDir() {
		http.Error(w, "Cannot download a directory", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", filepath.Base(r.FormValue("path"))))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = io.CopyN(w, h, st.Size())
}

// fileError answers 404 for what is not there or is not ours to show.
func fileError(w http.ResponseWriter, err error) {
	if errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "escapes") {
		http.Error(w, "Not found", http.StatusNotFound)
		return
	}
	http.Error(w, err.Error(), http.StatusBadRequest)
}

func reply(w http.ResponseWriter, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data)
}
