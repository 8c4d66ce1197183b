-- Returns the state of the log. KEYS: log.
return {state()}
