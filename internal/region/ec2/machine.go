package ec2

import "slices"

// codes are AWS's numbers of the states.
var codes = map[string]int64{pending: 0, running: 16, shuttingDown: 32, terminated: 48, stopping: 64, stopped: 80}

// moves are the transitions of an instance. Everything that changes a state
// goes through become, so no other ever happens.
var moves = map[string][]string{
	pending:      {running, shuttingDown, stopped}, // stopped: a start that failed
	running:      {stopping, stopped, shuttingDown},
	stopping:     {stopped, shuttingDown},
	stopped:      {pending, shuttingDown},
	shuttingDown: {terminated},
}

// become changes an instance's state; false where that is no transition.
func (i *instance) become(state string) bool {
	if !slices.Contains(moves[i.State], state) {
		return false
	}
	i.State = state
	i.Epoch++
	return true
}

// owes tells whether something is still to be done for the instance to be what
// it is said to be.
func (i *instance) owes() bool {
	switch i.State {
	case pending, stopping, shuttingDown:
		return true
	case running:
		return i.Reboot || len(i.Imaging) > 0
	case stopped:
		return len(i.Imaging) > 0
	}
	return false
}
