# a thousand random octets.
$random.1000
