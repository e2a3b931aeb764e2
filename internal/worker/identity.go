package worker

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
)

// identity is whom a process runs as.
type identity struct {
	uid, gid uint32
	groups   []uint32
}

// lookupIdentity finds a user and a group by name or number. It returns nil if
// neither is given.
func lookupIdentity(userName, groupName string) (*identity, error) {
	if userName == "" && groupName == "" {
		return nil, nil
	}
	account, err := lookupUser(userName)
	if err != nil {
		return nil, err
	}
	id := &identity{}
	if id.uid, err = number(account.Uid); err != nil {
		return nil, fmt.Errorf("user %q: %w", userName, err)
	}
	gid := account.Gid
	if groupName != "" {
		group, err := user.LookupGroup(groupName)
		if err != nil {
			group, err = user.LookupGroupId(groupName)
		}
		if err != nil {
			return nil, fmt.Errorf("group %q does not exist on this machine: %w", groupName, err)
		}
		gid = group.Gid
	}
	if id.gid, err = number(gid); err != nil {
		return nil, fmt.Errorf("group %q: %w", groupName, err)
	}
	memberships, err := account.GroupIds()
	if err != nil {
		memberships = nil // the primary group is enough to run
	}
	for _, membership := range memberships {
		if n, err := number(membership); err == nil {
			id.groups = append(id.groups, n)
		}
	}
	return id, nil
}

func lookupUser(name string) (*user.User, error) {
	if name == "" {
		return user.Current()
	}
	account, err := user.Lookup(name)
	if err != nil {
		account, err = user.LookupId(name)
	}
	if err != nil {
		return nil, fmt.Errorf("user %q does not exist on this machine: %w", name, err)
	}
	return account, nil
}

func number(id string) (uint32, error) {
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return 0, errors.New("numeric ids are needed to start a process as somebody else")
	}
	return uint32(n), nil
}
