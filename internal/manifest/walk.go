package manifest

import (
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func own(p string) bool {
	for _, o := range Own {
		if p == o || (strings.HasSuffix(o, "/") || strings.HasSuffix(o, "_")) && strings.HasPrefix(p, o) {
			return true
		}
	}
	return false
}

// walker goes through what is protected, folder by folder, by descriptors: there
// are ten thousand files and more on every instance, and this happens again and
// again on all of them.
type walker struct {
	see  func(*entry) error
	skip func(path string) error
	buf  []byte // of names as the kernel gives them
	link []byte
}

// walk calls see for everything protected below root, in the order of names,
// each folder before what is in it; what goes away meanwhile is passed over.
// What is not in the folder upper, if there is one, is not looked at: skip gets
// its path, for it and all below it.
func walk(root, upper string, see func(*entry) error, skip func(string) error) error {
	w := &walker{see: see, skip: skip, buf: make([]byte, 16<<10), link: make([]byte, unix.PathMax)}
	top, err := openDir(unix.AT_FDCWD, root)
	if err != nil {
		return err
	}
	defer unix.Close(top)
	wrote := none
	if upper != "" {
		if wrote, err = openDir(unix.AT_FDCWD, upper); err != nil {
			return err
		}
		defer unix.Close(wrote)
	}
	for _, dir := range Protected {
		if err := w.visit(top, wrote, strings.TrimPrefix(dir, "/"), dir, false); err != nil {
			return err
		}
	}
	return nil
}

const none = -1 // instead of a descriptor: everything is looked at

func openDir(at int, name string) (int, error) {
	for {
		fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// visit is for the name, whose path is path, in the folder at, and in the folder
// wrote of what the machine wrote itself. mine says that paths of Own may begin
// with path.
func (w *walker) visit(at, wrote int, name, path string, mine bool) error {
	if mine && own(path) {
		return nil
	}
	var st unix.Stat_t
	if wrote != none {
		err := unix.Fstatat(wrote, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if gone(err) {
			return w.skip(path)
		}
		if err != nil {
			return &fs.PathError{Op: "look at what was written of", Path: path, Err: err}
		}
	}
	err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if gone(err) {
		return nil
	}
	if err != nil { // which is not the same as a file that was removed
		return &fs.PathError{Op: "look at", Path: path, Err: err}
	}
	folder := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if mine && folder && own(path+"/") {
		return nil
	}
	e := entry{path: path, mode: fileMode(st.Mode), uid: st.Uid, gid: st.Gid, ctime: time.Unix(st.Ctim.Unix())}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.size, e.mtime = st.Size, st.Mtim.Nano()
	case unix.S_IFLNK:
		n, err := unix.Readlinkat(at, name, w.link)
		if err == unix.EINVAL || gone(err) { // another file took its place just now
			return nil
		}
		if err != nil {
			return &fs.PathError{Op: "read", Path: path, Err: err}
		}
		e.size, e.content = st.Size, string(w.link[:n])
	}
	if err := w.see(&e); err != nil || !folder {
		return err
	}
	return w.folder(at, wrote, name, path)
}

// folder visits what is in a folder. All its names are read also where little of
// it was written: what was removed is missing among them.
func (w *walker) folder(at, wrote int, name, path string) error {
	dir, err := openDir(at, name)
	if gone(err) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(dir)
	if wrote != none {
		wrote, err = openDir(wrote, name)
		if gone(err) { // another one took its place just now
			return w.skip(path)
		}
		if err != nil {
			return &fs.PathError{Op: "open what was written of", Path: path, Err: err}
		}
		defer unix.Close(wrote)
	}
	names, err := w.names(dir)
	if err != nil {
		return &fs.PathError{Op: "read", Path: path, Err: err}
	}
	mine := slices.ContainsFunc(Own, func(o string) bool { return strings.HasPrefix(o, path+"/") })
	for _, n := range names {
		if err := w.visit(dir, wrote, n, path+"/"+n, mine); err != nil {
			return err
		}
	}
	return nil
}

// gone tells whether there is nothing to look at, or not any more, or nothing
// that this user may see.
func gone(err error) bool {
	return err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP || err == unix.EACCES || err == unix.EPERM
}

func (w *walker) names(dir int) ([]string, error) {
	var names []string
	for {
		n, err := unix.Getdents(dir, w.buf)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ENOENT: // removed meanwhile
			n, err = 0, nil
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			slices.Sort(names)
			return names, nil
		}
		_, _, names = unix.ParseDirent(w.buf[:n], -1, names)
	}
}

// fileMode is the mode as package os has it, which manifests are written in.
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for _, bit := range []struct {
		unix uint32
		mode fs.FileMode
	}{{unix.S_ISUID, fs.ModeSetuid}, {unix.S_ISGID, fs.ModeSetgid}, {unix.S_ISVTX, fs.ModeSticky}} {
		if mode&bit.unix != 0 {
			m |= bit.mode
		}
	}
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		m |= fs.ModeDir
	case unix.S_IFLNK:
		m |= fs.ModeSymlink
	case unix.S_IFIFO:
		m |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		m |= fs.ModeSocket
	case unix.S_IFBLK:
		m |= fs.ModeDevice
	case unix.S_IFCHR:
		m |= fs.ModeDevice | fs.ModeCharDevice
	}
	return m
}
