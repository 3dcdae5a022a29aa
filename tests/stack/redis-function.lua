#!lua name=n8nbackuptest
redis.register_function('n8nbackuptest_one', function() return 1 end)
