package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
)

// pipes are connections to a server over which objects are read. Other than those of an
// http.Transport they let the kernel forward a body from one connection to another, so that
// the proxy takes next to none of the CPU time that the programs behind and before it need.
type pipes struct {
	upstream string

	mu     sync.Mutex
	idle   []*pipe
	closed bool
}

// pipe is one connection.
type pipe struct {
	*net.TCPConn
	reader *bufio.Reader
}

// roundTrip asks, once more if a connection that was idle turns out to be closed. The
// connection serves others when the body was read to its end and closed.
func (p *pipes) roundTrip(r *http.Request) (*http.Response, error) {
	for {
		c, used, err := p.take()
		if err != nil {
			return nil, err
		}
		resp, err := c.ask(r)
		if err != nil {
			_ = c.Close() // of no use any more
			if used {
				continue
			}
			return nil, fmt.Errorf("ask the server: %w", err)
		}
		if resp.ContentLength >= 0 {
			resp.Body = &pipedBody{pipes: p, pipe: c, left: resp.ContentLength, reusable: !resp.Close}
			return resp, nil
		}
		resp.Body = lastBody{resp.Body, c}
		return resp, nil
	}
}

// lastBody is one of unknown length, with which its connection ends.
type lastBody struct {
	io.ReadCloser
	pipe *pipe
}

// Close closes both.
func (b lastBody) Close() error { return errors.Join(b.ReadCloser.Close(), b.pipe.Close()) }

func (c *pipe) ask(r *http.Request) (*http.Response, error) {
	if err := r.Write(c.TCPConn); err != nil {
		return nil, err
	}
	return http.ReadResponse(c.reader, r)
}

// take returns a connection, and whether it was used before.
func (p *pipes) take() (c *pipe, used bool, err error) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		c, p.idle = p.idle[n-1], p.idle[:n-1]
	}
	p.mu.Unlock()
	if c != nil {
		return c, true, nil
	}
	conn, err := net.Dial("tcp", p.upstream)
	if err != nil {
		return nil, false, err
	}
	const header = 4 << 10 // what is read of a body with it is copied
	return &pipe{conn.(*net.TCPConn), bufio.NewReaderSize(conn, header)}, false, nil
}

func (p *pipes) give(c *pipe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = c.Close()
		return
	}
	p.idle = append(p.idle, c)
}

// close closes the connections that are idle, and from now on those that become it.
func (p *pipes) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.idle {
		_ = c.Close()
	}
	p.idle, p.closed = nil, true
}

// pipedBody is what a connection still has of an answer.
type pipedBody struct {
	pipes    *pipes
	pipe     *pipe
	left     int64
	reusable bool
}

// Read implements io.Reader.
func (b *pipedBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.pipe.reader.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// sendTo sends the next n bytes: what was read with the header, then what is in the
// connection, which a response of net/http leaves to the kernel.
func (b *pipedBody) sendTo(w http.ResponseWriter, n int64) (sent int64, err error) {
	n = min(n, b.left)
	if k := min(int64(b.pipe.reader.Buffered()), n); k > 0 {
		sent, err = io.CopyN(w, b.pipe.reader, k)
	}
	if err == nil && sent < n {
		var more int64
		more, err = io.Copy(w, &io.LimitedReader{R: b.pipe.TCPConn, N: n - sent})
		sent += more
	}
	b.left -= sent
	if err == nil && sent < n {
		err = io.ErrUnexpectedEOF
	}
	return sent, err
}

// Close lets others use the connection if nothing is left in it.
func (b *pipedBody) Close() error {
	if b.left > 0 || !b.reusable {
		return b.pipe.Close()
	}
	b.pipes.give(b.pipe)
	return nil
}
