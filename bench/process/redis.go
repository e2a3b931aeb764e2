package process

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Redis is a redis-server of our own, as the distribution has it, without
// persistence.
type Redis struct {
	*Process
	Address string
}

// StartRedis starts redis-server on a free port.
func StartRedis() (*Redis, error) {
	address := freeAddress()
	host, port := split(address)
	p, err := Run("redis-server", "--bind", host, "--port", strconv.Itoa(port), "--save", "", "--appendonly", "no")
	if err != nil {
		return nil, err
	}
	if err := p.Listening(address); err != nil {
		p.Stop()
		return nil, err
	}
	return &Redis{p, address}, nil
}

// Calls is how often a command was executed, in scripts or not.
func (r *Redis) Calls(command string) (float64, error) {
	return RedisInfo(r.Address, "cmdstat_"+command)
}

// RedisInfo asks the server at an address for one number of its INFO; of several
// in one line, for the first.
func RedisInfo(address, name string) (float64, error) {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, "INFO everything\r\n"); err != nil {
		return 0, err
	}
	in := bufio.NewReader(c)
	head, err := in.ReadString('\n')
	if err != nil {
		return 0, err
	}
	size, err := strconv.Atoi(strings.Trim(head, "$\r\n"))
	if err != nil {
		return 0, fmt.Errorf("redis answered %q", head)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(in, text); err != nil {
		return 0, err
	}
	lines := strings.Split(string(text), "\r\n")
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+":") })
	if i < 0 {
		return 0, fmt.Errorf("redis tells no %s", name)
	}
	value, _, _ := strings.Cut(strings.TrimPrefix(lines[i][len(name)+1:], "calls="), ",")
	return strconv.ParseFloat(value, 64)
}
