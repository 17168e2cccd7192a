package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/openjpki/jpki/cmd/internal/boot"
)

// -check says "ok", or in one line what is wrong and where; it connects to nothing.
func TestCheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "", "P-256")
	w.database = "postgres://jpki_status:hush@db1.invalid,db2.invalid/jpki?target_session_attrs=read-write"
	w.delegate("a", "P-256")
	w.delegate("b", "RSA")
	w.delegate("stray", "P-256")
	other := newWorld(t, "", "P-256")
	other.delegate("c", "P-256")
	for _, f := range []string{"c.key", "c.cer"} {
		text, err := os.ReadFile(other.path(f))
		if err != nil {
			t.Fatal(err)
		}
		w.write(f, text)
	}
	w.write("long", []byte("0123456789abcdef0123456789abcdef\n"))
	w.write("short", []byte("0123456789abcdef\n"))
	one := func(certificate, key string) string {
		return "[{issuer: sign-1, issuer_certificate: ca.cer, certificate: " + certificate + ", key: 'file:" + key + "'}]"
	}
	for name, test := range map[string]struct {
		fields map[string]string
		want   string // in the one line; "" if all is well
	}{
		"good":                       {},
		"with Redis":                 {map[string]string{"redis": "{addresses: ['redis.invalid:6379'], secret_file: long, relay_key_file: long}"}, ""},
		"a trial":                    {map[string]string{"database": "", "accept_trial": "true"}, ""},
		"one server":                 {map[string]string{"database": "postgres://db1.invalid/jpki"}, ""},
		"the primary of several":     {map[string]string{"database": "postgres://db1.invalid,db2.invalid/jpki?target_session_attrs=primary"}, ""},
		"unknown field":              {map[string]string{"prefixx": "/ocsp"}, `unknown field "prefixx"`},
		"unknown field, further in":  {map[string]string{"redis": "{addresses: [a], secret_file: long, key: x}"}, `unknown field "key"`},
		"not a duration":             {map[string]string{"bound": "quickly"}, "quickly"},
		"negative bound":             {map[string]string{"bound": "-1s"}, "bound is negative"},
		"bad validity":               {map[string]string{"validity": "1500ms"}, "Validity"},
		"bad prefix":                 {map[string]string{"prefix": "ocsp"}, "Prefix"},
		"no database":                {map[string]string{"database": ""}, "database is required"},
		"several servers":            {map[string]string{"database": "postgres://jpki:hush@db1.invalid,db2.invalid/jpki"}, "target_session_attrs=read-write"},
		"several servers, any":       {map[string]string{"database": "postgres://db1.invalid,db2.invalid/jpki?target_session_attrs=any"}, "target_session_attrs=read-write"},
		"several servers, in a word": {map[string]string{"database": "postgres:///jpki?host=db1.invalid,db2.invalid"}, "target_session_attrs=read-write"},
		"a standby":                  {map[string]string{"database": "postgres://db1.invalid/jpki?target_session_attrs=prefer-standby"}, "prefer-standby"},
		"no database's name":         {map[string]string{"database": "mysql://db1/jpki"}, "must begin with"},
		"no URL":                     {map[string]string{"database": "'postgres://jpki:hush@db1:x/jpki'"}, "database"},
		"no delegates":               {map[string]string{"delegates": "[]"}, "at least one is required"},
		"no such certificate":        {map[string]string{"delegates": one("none.cer", "a.key")}, "delegates[0] (sign-1)"},
		"no such key":                {map[string]string{"delegates": one("a.cer", "none.key")}, "delegates[0] (sign-1)"},
		"wrong key":                  {map[string]string{"delegates": one("a.cer", "stray.key")}, "key is not that of the certificate"},
		"another authority's":        {map[string]string{"delegates": one("c.cer", "c.key")}, "delegate"},
		"no certificate":             {map[string]string{"delegates": one("a.key", "a.key")}, "a.key"},
		"unknown issuer":             {map[string]string{"delegates": "[{issuer: sign, issuer_certificate: ca.cer, certificate: a.cer, key: 'file:a.key'}]"}, "not of the form"},
		"Redis without a secret":     {map[string]string{"redis": "{addresses: [a]}"}, "redis.secret_file is required"},
		"Redis, no such file":        {map[string]string{"redis": "{addresses: [a], secret_file: none}"}, "none"},
		"Redis, short secret":        {map[string]string{"redis": "{addresses: [a], secret_file: short}"}, "Secret has fewer than 32 octets"},
		"Redis, short relay key":     {map[string]string{"redis": "{addresses: [a], secret_file: long, relay_key_file: short}"}, "32 octets"},
		"Redis, two and no cluster":  {map[string]string{"redis": "{addresses: [a, b], secret_file: long}"}, "Cluster or Master"},
		"bad proxy":                  {map[string]string{"proxies": "[everywhere]"}, "proxies"},
		"trial without a snapshot":   {map[string]string{"accept_trial": "true", "snapshot": ""}, "accept_trial"},
		"negative memory":            {map[string]string{"memory": "-1"}, "memory is negative"},
		"negative connections":       {map[string]string{"connections": "-1"}, "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			out, errOut, code := jpkiStatus(t, "-config", w.config(test.fields, "a", "b"), "-check")
			if test.want == "" {
				if code != 0 || out != "ok\n" || errOut != "" {
					t.Errorf("exit code %d\n%s%s", code, out, errOut)
				}
				return
			}
			first, _, _ := strings.Cut(errOut, "\n")
			if code != boot.ExitUsage || out != "" || !strings.HasPrefix(first, "jpki-status: ") || !strings.Contains(errOut, test.want) {
				t.Errorf("exit code %d, want %d and %q\n%s%s", code, boot.ExitUsage, test.want, out, errOut)
			}
			if strings.Contains(errOut, "hush") {
				t.Errorf("a password is shown: %s", errOut)
			}
		})
	}
	missing := filepath.Join(w.dir, "none.yaml")
	if _, errOut, code := jpkiStatus(t, "-config", missing, "-check"); code != boot.ExitUsage || !strings.Contains(errOut, missing) {
		t.Errorf("no such configuration: exit code %d\n%s", code, errOut)
	}
}

// What -example prints is read by the strict reader, has every field there is, and lacks nothing but its files.
func TestExample(t *testing.T) {
	t.Parallel()
	out, errOut, code := jpkiStatus(t, "-example")
	if code != 0 || errOut != "" {
		t.Fatalf("exit code %d\n%s", code, errOut)
	}
	path := filepath.Join(t.TempDir(), "status.yaml")
	if err := os.WriteFile(path, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := readConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.Database == "" || len(c.Delegates) != 1 || c.Redis == nil || c.Redis.RelayKeyFile == "" || c.Memory != 256 || c.Connections != 20000 || c.PerAddress != 1000 {
		t.Errorf("%+v", c)
	}
	for _, field := range fieldsOf(config{}) {
		if !strings.Contains(out, field+":") && field != "accept_trial" { // not for production
			t.Errorf("the example does not explain %s", field)
		}
	}
	if _, errOut, code := jpkiStatus(t, "-config", path, "-check"); code != boot.ExitUsage || !strings.Contains(errOut, "no such file") {
		t.Errorf("exit code %d\n%s", code, errOut)
	}
}

// Exit codes: 2 for a command line or a configuration, 1 for what does not work.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "sqlite:"+filepath.Join(t.TempDir(), "ca.db"), "P-256")
	w.delegate("a", "P-256")
	taken := w.serve(w.config(nil, "a"))
	address := strings.TrimSuffix(strings.TrimPrefix(taken.url, "http://"), "/ocsp")
	for name, test := range map[string]struct {
		args []string
		code int
		want string
	}{
		"help":              {[]string{"-help"}, 0, "usage: jpki-status"},
		"nothing":           {nil, boot.ExitUsage, "-config is required"},
		"unknown flag":      {[]string{"-nosuch"}, boot.ExitUsage, "not defined"},
		"argument":          {[]string{"-config", "a", "b"}, boot.ExitUsage, `unexpected argument "b"`},
		"port that is used": {[]string{"-config", w.config(map[string]string{"listen": address}, "a")}, boot.ExitFailure, "address already in use"},
	} {
		if _, errOut, code := jpkiStatus(t, test.args...); code != test.code || !strings.Contains(errOut, test.want) {
			t.Errorf("%s: exit code %d, want %d and %q\n%s", name, code, test.code, test.want, errOut)
		}
	}
}

// fieldsOf returns the names under which a configuration's fields are written.
func fieldsOf(v any) (out []string) {
	for f := range reflect.TypeOf(v).Fields() {
		name := f.Tag.Get("yaml")
		if name == "" {
			continue
		}
		if name == ",inline" {
			out = append(out, fieldsOf(reflect.Zero(f.Type).Interface())...)
			continue
		}
		out = append(out, name)
		if inner := f.Type; inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
			if inner = inner.Elem(); inner.Kind() == reflect.Struct {
				out = append(out, fieldsOf(reflect.Zero(inner).Interface())...)
			}
		}
	}
	return out
}
