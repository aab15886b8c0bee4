SELECT amount FROM accounts WHERE id = 1 + random() * 49;
