package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/volute-io/volute/internal/goridge"
)

// report is a worker as informer.Workers tells of it.
type report struct {
	PID        int     `json:"pid"`
	Status     int32   `json:"status"`
	Jobs       int64   `json:"numExecs"`
	Created    int64   `json:"created"` // Unix nanoseconds
	Memory     int64   `json:"memoryUsage"`
	CPUPercent float64 `json:"CPUPercent"`
	Command    string  `json:"command"`
	StatusName string  `json:"statusStr"`
}

// Register makes the pools known to RPC callers by their names: informer.List,
// informer.Workers, informer.Jobs, informer.Stats (see Stats), informer.AddWorker,
// informer.RemoveWorker, resetter.List and resetter.Reset, with JSON or raw bodies.
func Register(server *goridge.Server, pools ...*Pool) {
	names := make([]string, 0, len(pools))
	byName := map[string]*Pool{}
	for _, p := range pools {
		names = append(names, p.Name())
		byName[p.Name()] = p
	}
	list := func(context.Context, byte, []byte) ([]byte, error) { return json.Marshal(names) }
	server.Register("informer.List", list)
	server.Register("resetter.List", list)

	operations := map[string]func(context.Context, *Pool) (any, error){
		"informer.Workers":      func(_ context.Context, p *Pool) (any, error) { return p.reports(), nil },
		"informer.Jobs":         func(context.Context, *Pool) (any, error) { return []string{}, nil }, // queues, of which a pool has none
		"informer.Stats":        func(_ context.Context, p *Pool) (any, error) { return p.Stats(), nil },
		"informer.AddWorker":    func(ctx context.Context, p *Pool) (any, error) { return true, p.Add(ctx) },
		"informer.RemoveWorker": func(ctx context.Context, p *Pool) (any, error) { return true, p.Remove(ctx) },
		"resetter.Reset":        func(ctx context.Context, p *Pool) (any, error) { return true, p.Reset(ctx) },
	}
	for method, operation := range operations {
		server.Register(method, func(ctx context.Context, codec byte, body []byte) ([]byte, error) {
			name, err := poolName(codec, body)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", method, err)
			}
			pool := byName[name]
			if pool == nil {
				return nil, fmt.Errorf("%s: no pool is called %q; there is %s", method, name, strings.Join(names, ", "))
			}
			answer, err := operation(ctx, pool)
			if err != nil {
				return nil, err
			}
			return json.Marshal(answer)
		})
	}
}

func poolName(codec byte, body []byte) (name string, err error) {
	switch codec {
	case goridge.Raw:
		return string(body), nil
	case goridge.JSON:
		if err := json.Unmarshal(body, &name); err != nil {
			return "", fmt.Errorf("the name of a pool is wanted: %w", err)
		}
		return name, nil
	}
	return "", fmt.Errorf("the name of a pool is wanted, in JSON")
}

func (p *Pool) reports() map[string][]report {
	reports := []report{}
	for _, w := range p.Workers() {
		reports = append(reports, report{
			PID: w.PID, Status: int32(w.State), StatusName: w.State.String(), Jobs: w.Jobs, Created: w.Created.UnixNano(),
			Memory: w.MemoryBytes, CPUPercent: w.CPUPercent, Command: w.Command,
		})
	}
	return map[string][]report{"workers": reports}
}
