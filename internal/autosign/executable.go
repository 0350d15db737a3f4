package autosign

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// Executable tells why a user cannot execute a file. Puppet takes an autosign
// setting that it cannot execute for a list of names, without a word, and then
// signs whatever the list happens to allow, or nothing at all.
func Executable(file, name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	groups, err := u.GroupIds()
	if err != nil {
		return err
	}
	if file, err = filepath.EvalSymlinks(file); err != nil {
		return err
	}
	may := func(p string) error { return allows(p, u.Uid, groups, 0o1, "executable", name) }
	if st, err := os.Stat(file); err != nil || !st.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", file)
	}
	for p := file; ; p = filepath.Dir(p) {
		if err := may(p); err != nil {
			return fmt.Errorf("%w: Puppet would read the autosign setting as a list of names instead of running it; chmod 0755 %s", err, p)
		}
		if p == "/" {
			return nil
		}
	}
}

// Writable tells why a user cannot write into a folder.
func Writable(dir, name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	groups, err := u.GroupIds()
	if err != nil {
		return err
	}
	if err := allows(dir, u.Uid, groups, 0o3, "writable", name); err != nil {
		return fmt.Errorf("%w: no token could be noted as used, and nothing would be signed; chown %s %s", err, name, dir)
	}
	return nil
}

// allows looks at the mode: root may everything, so trying tells nothing.
func allows(p, uid string, groups []string, want os.FileMode, what, name string) error {
	st, err := os.Stat(p)
	if err != nil {
		return err
	}
	own := st.Sys().(*syscall.Stat_t)
	switch {
	case strconv.Itoa(int(own.Uid)) == uid:
		want <<= 6
	case slices.Contains(groups, strconv.Itoa(int(own.Gid))):
		want <<= 3
	}
	if st.Mode().Perm()&want != want {
		return fmt.Errorf("%s is not %s by the user %s (mode %o)", p, what, name, st.Mode().Perm())
	}
	return nil
}
