// Package backup keeps backups of volumes in repositories (a directory, S3, SFTP), with restic as the engine: incremental, encrypted, and the same on every
// node that knows the repository. Passwords and keys come from files that the operator names, and are handed to restic in its environment or by the
// name of their file: they are in no command line, log or record of ours.
package backup

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Config is the file of --backup-config.
type Config struct {
	// Restic is the program; "" looks for restic on the path.
	Restic       string       `json:"restic,omitempty"`
	Repositories []Repository `json:"repositories"`
}

// Repository is one place for backups.
type Repository struct {
	Name string `json:"name"`
	// URL is a directory (/path), s3:https://host/bucket[/path], or sftp:user@host:/path, as restic writes them.
	URL          string `json:"url"`
	PasswordFile string `json:"password-file"`
	// Create makes the repository when there is none. Without it a missing one is an error: a backup must not go beside a mount that is away.
	Create bool `json:"create,omitempty"`
	// EnvFiles sets environment variables of restic from files: AWS_ACCESS_KEY_ID and the like.
	EnvFiles map[string]string `json:"env-files,omitempty"`
	// CAFile has the certificates that the server is checked against, beside the system's.
	CAFile string `json:"ca-file,omitempty"`
	SSH    *SSH   `json:"ssh,omitempty"`
	// UploadLimit and DownloadLimit are in KiB/s; 0 has none.
	UploadLimit   int `json:"upload-limit,omitempty"`
	DownloadLimit int `json:"download-limit,omitempty"`
}

// SSH says how an sftp: repository is reached.
type SSH struct {
	KeyFile        string `json:"key-file"`
	KnownHostsFile string `json:"known-hosts-file"`
	Port           int    `json:"port,omitempty"`
}

var (
	nameShape = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)
	envShape  = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)
	// sshPath is a file's name that the command line of restic's sftp option can hold, which restic takes apart by shell rules.
	sshPath = regexp.MustCompile(`^/[A-Za-z0-9_./@+-]+$`)
	sshHost = regexp.MustCompile(`^([A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9][A-Za-z0-9.:-]*$`)
)

// Read reads a --backup-config file.
func Read(path string) (Config, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fault.Wrap(fault.Invalid, err, "backup config")
	}
	var c Config
	if err := yaml.UnmarshalStrict(raw, &c); err != nil {
		return Config{}, fault.Wrap(fault.Invalid, err, "backup config %s", path)
	}
	return c, fault.Op(c.Check(), "backup config %s", path)
}

// Check refuses what cannot be meant, naming repository and field.
func (c Config) Check() error {
	seen := map[string]bool{}
	for _, r := range c.Repositories {
		if seen[r.Name] {
			return fault.New(fault.Invalid, "repository %q is there twice", r.Name)
		}
		seen[r.Name] = true
		if err := r.check(); err != nil {
			return fault.Op(err, "repository %q", r.Name)
		}
	}
	return nil
}

func (r Repository) check() error {
	no := func(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }
	if !nameShape.MatchString(r.Name) {
		return no("name must be 1 to 128 letters, digits, '_', '.' and '-'")
	}
	if err := r.checkURL(); err != nil {
		return err
	}
	files := map[string]string{"password-file": r.PasswordFile}
	if r.CAFile != "" {
		files["ca-file"] = r.CAFile
	}
	for k, f := range r.EnvFiles {
		if !envShape.MatchString(k) || strings.HasPrefix(k, "RESTIC_") || k == "PATH" || strings.HasPrefix(k, "LD_") {
			return no("env-files: %q is not a variable that may be set", k)
		}
		files["env-files "+k] = f
	}
	for what, f := range files {
		if !filepath.IsAbs(f) {
			return no("%s %q must be an absolute path of a file", what, f)
		}
	}
	if r.UploadLimit < 0 || r.DownloadLimit < 0 {
		return no("upload-limit and download-limit must not be negative")
	}
	return nil
}

func (r Repository) checkURL() error {
	no := func(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }
	scheme, rest, _ := strings.Cut(r.URL, ":")
	switch {
	case r.URL == "":
		return no("url is missing")
	case strings.ContainsFunc(r.URL, func(c rune) bool { return c <= ' ' || c == 0x7f }):
		return no("url must not hold white space")
	case filepath.IsAbs(r.URL):
		return nil
	case scheme == "s3":
		u, err := url.Parse(rest)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") == "" {
			return no("url must be s3:https://host/bucket[/path]")
		}
		if u.User != nil {
			return no("url must hold no credentials: name files with them under env-files")
		}
		return nil
	case scheme == "sftp":
		return r.checkSFTP(rest)
	}
	return no("url must be a directory (/path), s3:https://host/bucket[/path] or sftp:user@host:/path")
}

func (r Repository) checkSFTP(rest string) error {
	no := func(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }
	host, dir, ok := strings.Cut(rest, ":")
	switch {
	case !ok || !sshHost.MatchString(host) || !strings.HasPrefix(dir, "/"):
		return no("url must be sftp:user@host:/path")
	case r.SSH == nil:
		return no("sftp needs ssh: key-file and known-hosts-file")
	case !sshPath.MatchString(r.SSH.KeyFile) || !sshPath.MatchString(r.SSH.KnownHostsFile):
		return no("ssh: key-file and known-hosts-file must be absolute paths of letters, digits and _./@+-")
	case r.SSH.Port < 0 || r.SSH.Port > 65535:
		return no("ssh: port %d is not 1 to 65535", r.SSH.Port)
	}
	return nil
}

// options are what goes before restic's verb.
func (r Repository) options() []string {
	var out []string
	if host, _, ok := strings.Cut(strings.TrimPrefix(r.URL, "sftp:"), ":"); ok && r.SSH != nil && strings.HasPrefix(r.URL, "sftp:") {
		port := r.SSH.Port
		if port == 0 {
			port = 22
		}
		out = append(out, "-o", fmt.Sprintf("sftp.command=ssh -F none -i %s -o UserKnownHostsFile=%s -o StrictHostKeyChecking=yes -o BatchMode=yes -o IdentitiesOnly=yes -p %d %s -s sftp",
			r.SSH.KeyFile, r.SSH.KnownHostsFile, port, host))
	}
	if r.CAFile != "" {
		out = append(out, "--cacert", r.CAFile)
	}
	if r.UploadLimit > 0 {
		out = append(out, "--limit-upload", fmt.Sprint(r.UploadLimit))
	}
	if r.DownloadLimit > 0 {
		out = append(out, "--limit-download", fmt.Sprint(r.DownloadLimit))
	}
	return out
}

// environment reads the files, so that a new password counts at once.
func (r Repository) environment(cache string) ([]string, error) {
	env := []string{"RESTIC_REPOSITORY=" + r.URL, "RESTIC_PASSWORD_FILE=" + r.PasswordFile, "RESTIC_CACHE_DIR=" + cache, "RESTIC_PROGRESS_FPS=1",
		"PATH=" + os.Getenv("PATH"), "HOME=" + cache, "TMPDIR=" + cache, "LC_ALL=C.UTF-8"}
	names := make([]string, 0, len(r.EnvFiles))
	for k := range r.EnvFiles {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		raw, err := os.ReadFile(r.EnvFiles[k])
		if err != nil {
			return nil, fault.Wrap(fault.Unavailable, err, "repository %s: env-files %s", r.Name, k)
		}
		env = append(env, k+"="+strings.TrimSpace(string(raw)))
	}
	return env, nil
}
