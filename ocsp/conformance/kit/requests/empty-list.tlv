# asks about no certificate.
30{ 30{3000} }
