# a hash algorithm that nobody knows: 2.999.1.
30{ 30{ 30{ 30{ 30{ 30{ 06{883701} } 04{$random.32} 04{$random.31} 02{$serial} } } } } }
