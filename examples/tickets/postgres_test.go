package main

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that must happen.
const patience = 30 * time.Second

// postgres is one PostgreSQL for all tests, on a Unix socket in a folder of its
// own. It is started when the first test asks for it and stopped by TestMain.
var postgres struct {
	sync.Once
	err       error
	dir       string
	cmd       *exec.Cmd
	databases atomic.Int64
}

func TestMain(m *testing.M) {
	code := m.Run()
	stopPostgres()
	stopChromium()
	os.Exit(code)
}

// postgresDSN returns the address of an empty database.
func postgresDSN(t *testing.T) string {
	t.Helper()
	postgres.Do(func() { postgres.err = startPostgres() })
	if postgres.err != nil {
		t.Fatalf("PostgreSQL: %v (scripts/install-deps.sh installs it)", postgres.err)
	}
	name := fmt.Sprintf("tickets_%d", postgres.databases.Add(1))
	db, err := sql.Open("pgx", postgresURL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return postgresURL(name)
}

func postgresURL(database string) string {
	return fmt.Sprintf("postgres://tickets@/%s?host=%s", database, url.QueryEscape(postgres.dir))
}

func startPostgres() error {
	bin, err := postgresFolder()
	if err != nil {
		return err
	}
	// Not t.TempDir: a socket's path must be short, and the folder outlives the test.
	if postgres.dir, err = os.MkdirTemp("", "pg"); err != nil {
		return err
	}
	attr := &syscall.SysProcAttr{}
	if os.Getuid() == 0 { // PostgreSQL refuses to run as root
		nobody, err := user.Lookup("nobody")
		if err != nil {
			return err
		}
		uid, _ := strconv.Atoi(nobody.Uid)
		gid, _ := strconv.Atoi(nobody.Gid)
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(postgres.dir, uid, gid); err != nil {
			return err
		}
	}
	data := filepath.Join(postgres.dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "tickets", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
	initdb.SysProcAttr, initdb.Dir = attr, postgres.dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	log, err := os.Create(filepath.Join(postgres.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-k", postgres.dir,
		"-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=50")
	cmd.SysProcAttr, cmd.Dir, cmd.Stdout, cmd.Stderr = attr, postgres.dir, log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	postgres.cmd = cmd
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	db, err := sql.Open("pgx", postgresURL("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	for {
		if err = db.PingContext(ctx); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			said, _ := os.ReadFile(log.Name())
			return fmt.Errorf("does not answer: %w\n%s", err, said)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func postgresFolder() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		path, err = filepath.EvalSymlinks(path)
		return filepath.Dir(path), err
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err == nil && len(found) == 0 {
		err = exec.ErrNotFound
	}
	if err != nil {
		return "", err
	}
	return filepath.Dir(found[len(found)-1]), nil
}

func stopPostgres() {
	if postgres.cmd != nil {
		_ = postgres.cmd.Process.Signal(syscall.SIGINT) // fast shutdown
		_ = postgres.cmd.Wait()
	}
	if postgres.dir != "" {
		_ = os.RemoveAll(postgres.dir)
	}
}
