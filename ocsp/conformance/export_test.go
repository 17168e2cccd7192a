package conformance

// ReadAnswer shows what the kit reads in a response: its status and what it says of each certificate.
func ReadAnswer(der []byte) (status string, says []string, nonce []byte, err error) {
	a, err := readAnswer(der)
	if err != nil {
		return "", nil, nil, err
	}
	for _, s := range a.singles {
		says = append(says, s.says)
	}
	return a.status, says, a.nonce, nil
}

// FillTemplate fills a template with the same octets for every variable.
func FillTemplate(text string, value []byte) ([]byte, error) {
	t, err := parseTemplate(text)
	if err != nil {
		return nil, err
	}
	return t.fill(func(string) ([]byte, error) { return value, nil })
}
