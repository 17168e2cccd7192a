package deploy_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// exposure is the highest that systemd-analyze may give a unit, on its scale from 0 to 10.
const exposure = 1.5

func TestSystemd(t *testing.T) {
	need(t, "systemd-analyze", "systemd-sysusers")
	units, err := filepath.Glob(filepath.Join(deploy, "systemd", "*.service"))
	if err != nil || len(units) < 6 {
		t.Fatal(units, err)
	}
	bin := t.TempDir()
	verify := []string{"verify", "--man=no"}
	for _, unit := range units {
		out, err := try(t, "systemd-analyze", "security", "--offline=true", "--no-pager", unit)
		found := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindStringSubmatch(out)
		if found == nil {
			t.Errorf("%s: %v\n%s", unit, err, out)
			continue
		}
		if level, _ := strconv.ParseFloat(found[1], 64); level > exposure {
			t.Errorf("%s: exposure %s", unit, found[1])
		}
		// Units name programs where they will be installed; here each is a file that can be executed.
		text := read(t, unit)
		for _, program := range regexp.MustCompile(`/usr/local/bin/([a-z-]+)`).FindAllStringSubmatch(text, -1) {
			if err := os.WriteFile(filepath.Join(bin, program[1]), []byte("#!/bin/sh\n"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		verify = append(verify, write(t, strings.ReplaceAll(text, "/usr/local/bin/", bin+"/"), bin, "units", filepath.Base(unit)))
	}
	if out := run(t, "systemd-analyze", verify...); strings.TrimSpace(out) != "" {
		t.Errorf("systemd-analyze verify:\n%s", out)
	}
	// The checker can say no.
	broken := write(t, "[Service]\nExecStart="+bin+"/jpki-ca\nPrivateTmpp=yes\n", bin, "broken", "broken.service")
	if out, _ := try(t, "systemd-analyze", "verify", "--man=no", broken); !strings.Contains(out, "PrivateTmpp") {
		t.Errorf("an unknown setting passes:\n%s", out)
	}

	// Every user that a unit runs as is made.
	root := t.TempDir()
	users := read(t, deploy, "systemd", "jpki.sysusers")
	write(t, "", root, "etc", "passwd")
	write(t, "", root, "etc", "group")
	run(t, "systemd-sysusers", "--root="+root, write(t, users, root, "jpki.conf"))
	passwd, groups := read(t, root, "etc", "passwd"), read(t, root, "etc", "group")
	for _, unit := range units {
		for _, m := range regexp.MustCompile(`(?m)^(User|Group|SupplementaryGroups)=(\S+)$`).FindAllStringSubmatch(read(t, unit), -1) {
			list := groups
			if m[1] == "User" {
				list = passwd
			}
			if !strings.Contains("\n"+list, "\n"+m[2]+":") {
				t.Errorf("%s: %s is not made by jpki.sysusers", unit, m[0])
			}
		}
	}
}
