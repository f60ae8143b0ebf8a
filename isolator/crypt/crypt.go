// Package crypt encrypts a directory tree of ext4 by fscrypt (v2 policies, AES-256-XTS for contents, AES-256-CTS for names): file contents and names are ciphertext on
// the storage, sizes, times, owners and the number of files are not. The key of a tree is derived from a master key and a salt, so that no two
// volumes share one, is known to the kernel only while its file system is mounted and unlocked, and is never written anywhere by us.
package crypt

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Master says where the master key comes from: a file or a program's standard output. It is read anew whenever it is needed and forgotten at once.
type Master struct {
	File    string   // may be read by its owner only
	Command []string // argv; no shell. Its output is the key
}

// Given tells whether there is one.
func (m Master) Given() bool { return m.File != "" || len(m.Command) > 0 }

const (
	leastMaster = 32   // bytes
	mostMaster  = 4096 // more is no key
	patience    = 10 * time.Second
)

// Key is what a tree is encrypted with. Forget it after use.
type Key struct {
	raw [unix.FSCRYPT_MAX_KEY_SIZE]byte
}

// Forget overwrites the key.
func (k *Key) Forget() { clear(k.raw[:]) }

// Key derives the key for a salt. The error is fault.Unavailable when the master key is not to be had, and says nothing of its content.
func (m Master) Key(ctx context.Context, salt string) (*Key, error) {
	master, err := m.read(ctx)
	if err != nil {
		return nil, err
	}
	defer clear(master)
	if len(master) < leastMaster || len(master) > mostMaster {
		return nil, fault.New(fault.Unavailable, "the master key has %d bytes; it must have %d to %d of them", len(master), leastMaster, mostMaster)
	}
	raw, err := hkdf.Key(sha256.New, master, []byte(salt), "holdfast volume key 1", unix.FSCRYPT_MAX_KEY_SIZE)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "derive a key")
	}
	defer clear(raw)
	k := new(Key)
	copy(k.raw[:], raw)
	return k, nil
}

func (m Master) read(ctx context.Context) ([]byte, error) {
	var raw []byte
	var err error
	switch {
	case m.File != "":
		raw, err = readFile(m.File)
	case len(m.Command) > 0:
		raw, err = output(ctx, m.Command)
	default:
		err = fault.New(fault.Unavailable, "there is no key: neither a file nor a command was given")
	}
	return bytes.TrimSuffix(raw, []byte("\n")), err
}

func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "read the key file")
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "read the key file")
	}
	if !fi.Mode().IsRegular() || fi.Mode().Perm()&0o077 != 0 {
		return nil, fault.New(fault.Unavailable, "the key file %s has mode %v; it must be a file that only its owner may read (chmod 600)", path, fi.Mode())
	}
	raw, err := io.ReadAll(io.LimitReader(f, mostMaster+2))
	return raw, fault.Wrap(fault.Unavailable, err, "read the key file")
}

// output runs the program. What it says on its standard error is not passed on: it might be the key.
func output(ctx context.Context, argv []string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "LC_ALL=C"}
	cmd.WaitDelay = time.Second
	out := limited{most: mostMaster + 2}
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		clear(out.got)
		return nil, fault.Wrap(fault.Unavailable, err, "the key command %s", argv[0])
	}
	return out.got, nil
}

// limited keeps the first bytes and swallows the rest.
type limited struct {
	got  []byte
	most int
}

func (l *limited) Write(p []byte) (int, error) {
	l.got = append(l.got, p[:min(len(p), l.most-len(l.got))]...)
	return len(p), nil
}

// ID is the key's identifier, as the kernel computes it from the key, in hexadecimal. It tells nothing of the key.
func (k *Key) ID() string {
	prk, err := hkdf.Extract(sha512.New, k.raw[:], nil)
	if err != nil {
		return ""
	}
	id, err := hkdf.Expand(sha512.New, prk, "fscrypt\x00\x01", unix.FSCRYPT_KEY_IDENTIFIER_SIZE)
	if err != nil {
		return ""
	}
	return hex.EncodeToString(id)
}

// CheckID is Conflict unless id looks like a key's identifier.
func CheckID(id string) error {
	if raw, err := hex.DecodeString(id); err != nil || len(raw) != unix.FSCRYPT_KEY_IDENTIFIER_SIZE {
		return fault.New(fault.Conflict, "key identifier %.40q is none", id)
	}
	return nil
}

// Protect has everything that will be written into an empty directory encrypted with a key. The file system must have been made for that, and know the key.
func Protect(dir string, k *Key) error {
	p := unix.FscryptPolicyV2{Version: unix.FSCRYPT_POLICY_V2, Contents_encryption_mode: unix.FSCRYPT_MODE_AES_256_XTS,
		Filenames_encryption_mode: unix.FSCRYPT_MODE_AES_256_CTS, Flags: unix.FSCRYPT_POLICY_FLAGS_PAD_32}
	if _, err := hex.Decode(p.Master_key_identifier[:], []byte(k.ID())); err != nil {
		return fault.Wrap(fault.Internal, err, "identifier of the key")
	}
	err := on(dir, func(f *os.File) error { return ioctl(f, unix.FS_IOC_SET_ENCRYPTION_POLICY, unsafe.Pointer(&p)) })
	return fault.Wrap(class(err), err, "encrypt its data directory")
}

// KeyOf gives the identifier of the key that a directory is encrypted with, "" when it is not encrypted.
func KeyOf(dir string) (string, error) {
	arg := unix.FscryptGetPolicyExArg{Size: 24}
	err := on(dir, func(f *os.File) error { return ioctl(f, unix.FS_IOC_GET_ENCRYPTION_POLICY_EX, unsafe.Pointer(&arg)) })
	switch {
	case errors.Is(err, unix.ENODATA):
		return "", nil
	case err != nil:
		return "", fault.Wrap(fault.Unknown, err, "look how its data directory is encrypted")
	case arg.Policy[0] != unix.FSCRYPT_POLICY_V2:
		return "", fault.New(fault.Conflict, "its data directory has an encryption policy of another kind (%d)", arg.Policy[0])
	}
	return hex.EncodeToString(arg.Policy[8:24]), nil
}

// Unlock gives the key to the file system in which a directory lies.
func Unlock(dir string, k *Key) error {
	// struct fscrypt_add_key_arg with the key behind it.
	var arg struct {
		unix.FscryptAddKeyArg
		raw [unix.FSCRYPT_MAX_KEY_SIZE]byte
	}
	arg.Key_spec.Type = unix.FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER
	arg.Raw_size = uint32(len(k.raw))
	arg.raw = k.raw
	defer clear(arg.raw[:])
	if err := on(dir, func(f *os.File) error { return ioctl(f, unix.FS_IOC_ADD_ENCRYPTION_KEY, unsafe.Pointer(&arg)) }); err != nil {
		return fault.Wrap(class(err), err, "give the key to its file system")
	}
	if got := hex.EncodeToString(arg.Key_spec.U[:unix.FSCRYPT_KEY_IDENTIFIER_SIZE]); got != k.ID() {
		return fault.New(fault.Internal, "the kernel calls the key %s, we call it %s", got, k.ID())
	}
	return nil
}

// Lock takes the key of an identifier away from the file system of an open directory, and with it all that the kernel has in memory in the clear. busy says that files of it are
// still open, which stay readable to those who have them open. A key that is not there is taken away.
func Lock(dir *os.File, id string) (busy bool, err error) {
	var arg unix.FscryptRemoveKeyArg
	arg.Key_spec.Type = unix.FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER
	if err := CheckID(id); err != nil {
		return false, err
	}
	_, _ = hex.Decode(arg.Key_spec.U[:], []byte(id))
	err = ioctl(dir, unix.FS_IOC_REMOVE_ENCRYPTION_KEY_ALL_USERS, unsafe.Pointer(&arg))
	if errors.Is(err, unix.ENOKEY) {
		return false, nil
	}
	return arg.Removal_status_flags&unix.FSCRYPT_KEY_REMOVAL_STATUS_FLAG_FILES_BUSY != 0, fault.Wrap(fault.Unknown, err, "take the key away from its file system")
}

// Known tells whether the file system of an open directory has the key of an identifier, also in part.
func Known(dir *os.File, id string) (bool, error) {
	var arg unix.FscryptGetKeyStatusArg
	arg.Key_spec.Type = unix.FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER
	if err := CheckID(id); err != nil {
		return false, err
	}
	_, _ = hex.Decode(arg.Key_spec.U[:], []byte(id))
	err := ioctl(dir, unix.FS_IOC_GET_ENCRYPTION_KEY_STATUS, unsafe.Pointer(&arg))
	return arg.Status != unix.FSCRYPT_KEY_STATUS_ABSENT, fault.Wrap(fault.Unknown, err, "ask for the state of the key")
}

func class(err error) fault.Class {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOPKG): // the kernel, or the file system, cannot
		return fault.Unavailable
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fault.Denied
	}
	return fault.Unknown
}

func on(dir string, f func(*os.File) error) error {
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	return f(d)
}

func ioctl(f *os.File, call uint, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(call), uintptr(arg))
	runtime.KeepAlive(f)
	if errno != 0 {
		return errno
	}
	return nil
}
