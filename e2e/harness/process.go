package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tailLines is how much of a log a test that did not pass prints.
const tailLines = 80

// Command describes a process.
type Command struct {
	// Name is unique among the running processes of a cluster; it names the log file.
	Name string
	// Path is the binary, see Cluster.Varve and Cluster.Tool.
	Path string
	Args []string
	// Env is added to the environment of the calling process.
	Env []string
	// Dir is the working directory; empty means the cluster's.
	Dir string
}

// Process is a started command. It is safe for concurrent use.
type Process struct {
	Command

	cmd  *exec.Cmd
	log  string
	logf func(format string, args ...any)
	done chan struct{} // closed once the process has ended and exit is set
	exit error
}

// Start starts a process that ends with the cluster at the latest. Starting a
// command again after it ended appends to its log.
func (c *Cluster) Start(command Command) (*Process, error) {
	dir, err := c.Dir("logs")
	if err != nil {
		return nil, err
	}
	p := &Process{
		Command: command,
		log:     filepath.Join(dir, command.Name+".log"),
		logf:    c.opts.Logf,
		done:    make(chan struct{}),
	}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the process has its own descriptor

	p.cmd = exec.Command(command.Path, command.Args...)
	p.cmd.Env = append(os.Environ(), command.Env...)
	p.cmd.Dir = command.Dir
	if p.cmd.Dir == "" {
		p.cmd.Dir = c.opts.Dir
	}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = diesWithParent()

	c.mu.Lock()
	defer c.mu.Unlock()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", command.Name, err)
	}
	c.processes = append(c.processes, p)
	p.logf("%s: started, process %d, log %s", p.Name, p.cmd.Process.Pid, p.log)
	go func() {
		p.exit = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed once the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the process or of ctx. A process that ended with
// a code other than 0, or by a signal, gives an *exec.ExitError.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.exit
	case <-ctx.Done():
		return fmt.Errorf("wait for %s to end: %w", p.Name, context.Cause(ctx))
	}
}

// State says in words whether the process runs or how it ended.
func (p *Process) State() string {
	select {
	case <-p.done:
		return p.cmd.ProcessState.String()
	default:
		return "running"
	}
}

// Signal sends a signal; a process that has ended already is not an error.
func (p *Process) Signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.Name, err)
	}
	return nil
}

// Stop sends SIGTERM and waits for the end; a process that is still there
// after twenty seconds is killed, which is an error. How the process ended is
// not judged: ask Wait.
func (p *Process) Stop() error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		return errors.Join(fmt.Errorf("stop %s: still running %s after SIGTERM; killed", p.Name, stopGrace), p.Kill())
	}
}

// Kill sends SIGKILL and waits for the end.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

// Output returns what the process, and any of the same name before it, has
// written so far to standard output and error.
func (p *Process) Output() (string, error) {
	b, err := os.ReadFile(p.log)
	return string(b), err
}

func (p *Process) tail() string {
	out, err := p.Output()
	if err != nil {
		return err.Error()
	}
	lines := strings.SplitAfter(out, "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "")
}

// WaitReady waits until ready returns nil. It gives up early, with the end of
// the log, when the process ends instead.
func (p *Process) WaitReady(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-p.done:
			cancel(fmt.Errorf("%s ended: %s; its log ends\n%s", p.Name, p.State(), p.tail()))
		case <-stop:
		}
	}()
	return WaitFor(ctx, p.Name+" to become ready", ready)
}

// FreePort returns a TCP port of 127.0.0.1 that nothing listens on just now.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// FreeAddress returns 127.0.0.1 with a free port, as host:port.
func FreeAddress() (string, error) {
	port, err := FreePort()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), err
}

// ExitCode returns the code a process ended with, or -1 while it runs or when
// a signal ended it.
func (p *Process) ExitCode() int {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	default:
		return -1
	}
}

// LogContains returns an error until the log contains text; for WaitFor.
func (p *Process) LogContains(text string) error {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err
	}
	if !bytes.Contains(b, []byte(text)) {
		return fmt.Errorf("log of %s does not contain %q", p.Name, text)
	}
	return nil
}
