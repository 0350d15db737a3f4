package pipeline

// Commanded tells whether a gate of the run sent its command to an instance that
// lives on. The intents of such commands say that they were no stranger's: they
// are needed as long as anybody looks at what was run there.
func (r Run) Commanded() bool {
	for _, s := range r.Stages {
		if s.Gate != nil && s.Gate.Command != nil && s.Gate.Command.CommandID != "" {
			return true
		}
	}
	return false
}
